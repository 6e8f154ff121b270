"""The pages behind a proxy with TLS: one signs in, stays at https, and follows what happens."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

import pytest

from jobs.output.output import Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.serve.opened import site_at, site_of
from producer.serve.outputs import key_of
from producer.serve.server import LOOPBACK, listen, serving
from tests.browser import LONGEST, Visit, chromium
from tests.proxies import nginx, stand_in
from tests.visitor import TOKEN


@contextmanager
def guarded_pages(redis: EmbeddedRedis, output: Output) -> Iterator[str]:
    """The address of pages that ask for a token."""
    listener = listen("127.0.0.1", 0)
    with serving(listener, lambda: site_at(redis.url, output, TOKEN)):
        yield listener.url


def look(address: str, job_id: str, output: Output) -> None:
    """What a person does at a proxy's address: signs in, is shown the job, and its pictures."""
    with chromium() as browser:
        context = browser.new_context(ignore_https_errors=True)
        context.set_default_timeout(LONGEST)
        visit = Visit(context.new_page())
        page = visit.page
        page.goto(f"{address}/jobs/{job_id}")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name=job_id).wait_for()
        [cookie] = context.cookies()
        assert (cookie["secure"], cookie["httpOnly"]) == (True, True)
        with page.expect_response(lambda answer: "part=live" in answer.url) as looked:
            pass
        assert looked.value.status == 200
        # With a slash at its end.
        page.goto(f"{address}/outputs/{key_of(output.label)}/?text=fox")
        page.wait_for_url(f"{address}/outputs/{key_of(output.label)}?text=fox")
        assert page.locator("#text").input_value() == "fox"
        visit.check(address)
        assert all(url.startswith("https://") for url in visit.asked)


def cookie_of(url: str, **headers: str) -> str:
    """The cookie that signing in without a proxy sets."""
    body = urlencode({"token": TOKEN}).encode()
    opener = urllib.request.build_opener(_Stay, urllib.request.HTTPCookieProcessor(CookieJar()))
    try:
        opener.open(urllib.request.Request(f"{url}/sign-in", body, headers), timeout=60)
    except urllib.error.HTTPError as answer:
        return str(answer.headers["set-cookie"])
    raise AssertionError("signed in without a cookie")


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follows nothing."""


def test_behind_a_proxy_with_tls_one_signs_in_and_stays_there(
    redis_server: EmbeddedRedis, submit_job: Callable[..., str], tmp_path: Path
) -> None:
    output = Output(tmp_path / "out")
    output.prepare()
    job_id = submit_job(2)
    with guarded_pages(redis_server, output) as url, stand_in(tmp_path, url) as address:
        look(address, job_id, output)
        assert "secure" not in cookie_of(url).lower(), "a browser would not send it back"


def test_behind_nginx_as_the_documents_set_it_up_too(
    redis_server: EmbeddedRedis, submit_job: Callable[..., str], tmp_path: Path
) -> None:
    """Without nginx (Debian: nginx-light), the test above has a stand-in for it."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        return
    output = Output(tmp_path / "out")
    output.prepare()
    job_id = submit_job(2)
    with guarded_pages(redis_server, output) as url, nginx(program, tmp_path, url) as address:
        look(address, job_id, output)


@pytest.mark.parametrize(
    ("proxies", "is_believed"),
    [(LOOPBACK, True), (["127.0.0.1"], True), (["10.0.0.0/8", "::1"], False), ([], False)],
)
def test_only_a_proxy_that_was_named_is_believed(
    proxies: list[str], is_believed: bool, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    listener = listen("127.0.0.1", 0)
    with serving(listener, lambda: site_at(redis_server.url, Output(tmp_path), TOKEN), proxies):
        cookie = cookie_of(listener.url, **{"X-Forwarded-Proto": "https"})
    assert ("secure" in cookie.lower()) is is_believed


def test_no_proxy_opens_pages_without_a_token_to_another_name(redis_server: EmbeddedRedis) -> None:
    listener = listen("127.0.0.1", 0)
    settings = Settings(redis_url=redis_server.url)  # type: ignore[arg-type]
    with serving(listener, lambda: site_of(settings, [])):
        for headers in (
            {"Host": "farm.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"},
            {"Host": "farm.example", "X-Forwarded-Host": "localhost"},
        ):
            with pytest.raises(urllib.error.HTTPError, match="421"):
                urllib.request.urlopen(urllib.request.Request(f"{listener.url}/", headers=headers))
