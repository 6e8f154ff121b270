"""The command that serves the pages. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from jobs.errors import Interrupted, SettingsError
from producer.commands.places import OUTPUT
from producer.session import FILE, Session, pass_session

if TYPE_CHECKING:
    from jobs.output.output import Output

_SHORTEST = 16
"""Characters of a token: nobody guesses so many."""


@click.command()
@click.argument("outputs", metavar="[OUT]...", nargs=-1, type=OUTPUT)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to serve at; 0.0.0.0 is all there are.",
)
@click.option(
    "--port", default=8484, show_default=True, type=click.IntRange(0, 65535), help="0 is any that is free."
)
@click.option("--token", metavar="TOKEN", help="Let in only who gives it. Other users may see it in `ps`.")
@click.option("--token-file", type=FILE, metavar="FILE", help="The same, read from a file.")
@click.option(
    "--forwarded-allow-ips",
    "proxies",
    metavar="LIST",
    default="127.0.0.0/8,::1",
    show_default=True,
    help="Proxies whose X-Forwarded-Proto is believed: addresses and networks, with commas between them.",
)
@pass_session
def serve(
    session: Session,
    outputs: tuple[Output, ...],
    host: str,
    port: int,
    token: str | None,
    token_file: Path | None,
    proxies: str,
) -> None:
    """Show jobs, workers and pictures in a browser.

    The outputs of all jobs in Redis can be seen, and each OUT, a folder or s3://BUCKET/PREFIX. Nothing can be
    changed. Only this machine is served, unless --host names another address; that needs a token. Ctrl-C ends
    it. It needs the extra `serve`: pip install 'imagemill[serve]'.

    Exit status: 0 stopped by SIGTERM, 2 bad input, 130 Ctrl-C.
    """
    try:
        _serve(session, outputs, _Address(host, port), _networks(proxies), _token(token, token_file))
    except KeyboardInterrupt as stopped:
        # What starts services takes any other status for a failure. A shell's script must end at Ctrl-C.
        told_to_stop = stopped.args == (signal.SIGTERM.name,)
        sys.exit(0 if told_to_stop else Interrupted.exit_code)


class _Address(NamedTuple):
    """Where to serve."""

    host: str
    port: int


def _serve(
    session: Session, outputs: Sequence[Output], at: _Address, proxies: Sequence[str], secret: str | None
) -> None:
    """Serves until this process is told to stop, which raises KeyboardInterrupt."""
    from producer.serve.server import check_installed, is_loopback, listen, serving

    check_installed()
    if secret is None and not is_loopback(at.host):
        raise SettingsError(
            f"--host {at.host}: others could look at everything: write a token to a file, such as by\n"
            "    (umask 077; python -c 'import secrets; print(secrets.token_urlsafe())' > token)\n"
            "and add --token-file token; or leave --host away, and come through `ssh -L`"
        )
    from producer.serve.gallery.warm import warm
    from producer.serve.opened import site_of

    site = site_of(session.settings, outputs, secret)
    warm()
    site.pages.compile()
    listener = listen(at.host, at.port)
    with serving(listener, lambda: site, proxies) as served:
        others = (
            f" and all addresses of this machine, such as {listener.elsewhere}/" if listener.elsewhere else ""
        )
        click.echo(f"serving at {listener.url}/{others} (Ctrl-C ends it)")
        served.join()


def _networks(told: str) -> list[str]:
    """The addresses and networks of a list. Raises SettingsError."""
    found = [part.strip() for part in told.split(",") if part.strip()]
    for one in found:
        try:
            ip_network(one)
        except ValueError as error:
            raise SettingsError(
                f"--forwarded-allow-ips {one}: is no address and no network, such as 10.0.0.7 or 10.0.0.0/8 "
                f"({error})"
            ) from None
    return found


def _token(token: str | None, file: Path | None) -> str | None:
    """The token that was given. Raises SettingsError for one that could be guessed."""
    if token is not None and file is not None:
        raise SettingsError("--token and --token-file exclude each other: give one")
    if file is not None:
        from jobs.plain_file import read_plain

        try:
            token = read_plain(file, 4096).decode().strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error  # the name of the file is told already
            raise SettingsError(f"--token-file {file}: cannot be read ({why})") from None
    where = "--token" if file is None else f"--token-file {file}"
    if token is not None and (len(token) < _SHORTEST or not token.isascii() or not token.isprintable()):
        raise SettingsError(
            f"{where}: must have at least {_SHORTEST} characters of ASCII: take what "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` prints"
        )
    return token
