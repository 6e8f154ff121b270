"""Where the pages are served, and what is said where they cannot be."""

from __future__ import annotations

import socket
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from jinja2 import FileSystemLoader

from jobs.errors import SettingsError
from jobs.output.output import Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.reporter import Quiet
from producer.serve import beside_run
from producer.serve.beside_run import pages_of
from producer.serve.opened import site_of
from producer.serve.server import (
    Listener,
    check_installed,
    is_installed,
    is_loopback,
    listen,
    serving,
)
from producer.serve.site import Site
from tests.waiting import LONGEST, WaitUntil


def test_any_port_that_is_free_is_taken_and_its_address_answers_until_the_block_ends(
    redis_server: EmbeddedRedis,
) -> None:
    listener = listen("127.0.0.1", 0)
    settings = Settings(redis_url=redis_server.url)  # type: ignore[arg-type]
    with serving(listener, lambda: site_of(settings, [])):
        with urllib.request.urlopen(f"{listener.url}/", timeout=60) as answer:
            assert b"There is no job yet" in answer.read()
        server_header = answer.headers.get("server")
    assert server_header is None
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{listener.url}/", timeout=60)


def test_a_port_in_use_is_one_message() -> None:
    taken = listen("127.0.0.1", 0)
    port = taken.socket.getsockname()[1]
    with taken.socket, pytest.raises(SettingsError, match=f"port {port} of 127.0.0.1 is in use: .*--port 0"):
        listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1, port 0: cannot be served"):
        listen("192.0.2.1", 0)
    with pytest.raises(SettingsError, match=r"--host no\.such\.host\.invalid: is no address of this machine"):
        listen("no.such.host.invalid", 0)


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("a", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, is_it: bool) -> None:
    assert is_loopback(host) is is_it


def test_what_ends_the_thread_is_raised_to_who_waits_for_it() -> None:
    for error in (ZeroDivisionError("odd"), SystemExit(3)):

        def site(error: BaseException = error) -> Site:
            raise error

        with serving(listen("127.0.0.1", 0), site) as served, pytest.raises(type(error), match=str(error)):
            served.join()


def connects(port: int) -> bool:
    """Whether a port of this machine takes connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=LONGEST).close()
    except ConnectionError:
        return False
    return True


class Told(Quiet):
    """Remembers the lines that it takes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str, /) -> None:
        """Remembers it."""
        self.lines.append(text)


def test_a_run_leaves_the_port_of_serve_free(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    told = Told()
    with (
        pages_of(redis_server.url, Output(tmp_path / "one"), "cats-1", told),
        pages_of(redis_server.url, Output(tmp_path / "two"), "dogs-1", told),
    ):
        ports = {urlsplit(line.removeprefix("pictures: ")).port for line in told.lines}
    assert len(ports) == 2 and not ports & {None, 8484}


def test_what_strangers_send_is_not_told_on_the_terminal(
    redis_server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    listener = listen("127.0.0.1", 0)
    address = listener.socket.getsockname()
    settings = Settings(redis_url=redis_server.url)  # type: ignore[arg-type]
    https = b"\x16\x03\x01\r\n\r\n"
    websocket = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with serving(listener, lambda: site_of(settings, [])):
        for sent in (https, websocket):
            with socket.create_connection(address, timeout=LONGEST) as client:
                client.sendall(sent)
                assert client.recv(1_000).startswith(b"HTTP/1.1 ")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []


def test_a_run_without_a_port_says_that_its_pages_are_not_served(
    redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_is_free(*_: object) -> Listener:
        raise SettingsError("port 0 of 127.0.0.1 is in use")

    monkeypatch.setattr(beside_run, "listen", none_is_free)
    told = Told()
    with pages_of(redis_server.url, Output(tmp_path), "cats-1", told):
        pass
    assert told.lines == ["pictures: not served (port 0 of 127.0.0.1 is in use)"]


def test_a_run_whose_pages_cannot_be_built_says_so_at_once_and_keeps_no_visitor_waiting(
    redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    def site_at(*_: object) -> Site:
        raise OSError("no more memory")

    monkeypatch.setattr("producer.serve.opened.site_at", site_at)
    told = Told()
    with pages_of(redis_server.url, Output(tmp_path), "cats-1", told):
        port = urlsplit(told.lines[0].removeprefix("pictures: ")).port
        assert port is not None
        wait_until(lambda: not connects(port), "the port is given back")
        wait_until(lambda: told.lines[1:], "it is told")
        said = "pictures: no longer served, and the run goes on (OSError('no more memory'))"
        assert told.lines[1:] == [said]
    assert told.lines[1:] == [said]


def test_a_run_tells_a_broken_template_before_anybody_comes(
    redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    pages = tmp_path / "templates"
    pages.mkdir()
    (pages / "job.html").write_text("{% if %}", "utf-8")
    monkeypatch.setattr(
        "producer.serve.pages.PackageLoader", lambda *_: FileSystemLoader(pages), raising=True
    )
    told = Told()
    with pages_of(redis_server.url, Output(tmp_path), "cats-1", told):
        wait_until(lambda: told.lines[1:], "it is told")
        assert "no longer served, and the run goes on (TemplateSyntaxError" in told.lines[1]


def test_where_all_addresses_are_served_one_is_told_that_other_machines_can_use() -> None:
    listener = listen("0.0.0.0", 0)
    with listener.socket as taken:
        port = taken.getsockname()[1]
    assert listener.url == f"http://127.0.0.1:{port}"
    assert listener.elsewhere == f"http://{socket.gethostname()}:{port}"
    listener = listen("127.0.0.1", 0)
    with listener.socket:
        assert listener.elsewhere == ""


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    if not socket.has_ipv6:
        return
    try:
        listener = listen("::1", 0)
    except SettingsError as error:
        assert "::1" in str(error)  # a machine without that address
        return
    with listener.socket:
        assert listener.url.startswith("http://[::1]:")


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_installed()
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert not is_installed()
    with pytest.raises(SettingsError, match=r"need starlette, .*: pip install 'imagemill\[serve\]'"):
        check_installed()
