"""The pages of an `imagemill run`, for as long as it lasts."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from jobs.errors import SettingsError
from producer.reporter import Reporter
from producer.serve.server import is_installed, listen, serving

if TYPE_CHECKING:
    from jobs.output.output import Output
    from producer.serve.site import Site


@contextmanager
def pages_of(url: str, output: Output, job_id: str, reporter: Reporter) -> Iterator[None]:
    """Serves the pages of the Redis at `url` on this machine until the block ends; tells the job's address.

    Serves nothing where the extra `serve` is not installed. It tells at once where no port can be had, where
    the pages cannot be built, and what else ends them; the run goes on. The address has a token: other users
    of the machine must not see what they cannot read.
    """
    if not is_installed():
        yield
        return
    try:
        listener = listen("127.0.0.1", 0)  # any port: that of `serve` stays free
    except SettingsError as error:
        reporter.line(f"pictures: not served ({error})")
        yield
        return
    token = secrets.token_urlsafe()

    def site() -> Site:
        from producer.serve.opened import site_at

        made = site_at(url, output, token)
        made.pages.compile()  # a template that is broken is told now, not to the first visitor
        return made

    def failed(error: BaseException) -> None:
        reporter.line(f"pictures: no longer served, and the run goes on ({error!r})")

    address = f"{listener.url}/jobs/{quote(job_id, safe='')}?token={token}"
    reporter.line(f"pictures: {address}")
    with serving(listener, site, failed=failed):
        yield
