"""Connections are few and bounded in time, whatever clients leave half done."""

from __future__ import annotations

import hashlib
import json
import resource
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from jobs.output.output import Output
from producer.embedded_redis import EmbeddedRedis
from producer.serve import connection_limits, server
from producer.serve.opened import site_at
from producer.serve.outputs import key_of
from producer.serve.server import Listener, listen, serving
from tests.ports import connections_at
from tests.visitor import TOKEN
from tests.waiting import LONGEST, WaitUntil

WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
FORM = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
LARGE = 16 << 20
HALVES = {
    "nothing": b"",
    "a line": b"GET / HTTP/1.1\r\n",
    "no body": FORM,
    "half a body": FORM + b"token",
    "a second one": WHOLE + b"GET / HTTP/1.1\r\nHost: local",
}


@contextmanager
def served(redis: EmbeddedRedis, output: Output) -> Iterator[Listener]:
    """Where pages with a token are served."""
    listener = listen("127.0.0.1", 0)
    with serving(listener, lambda: site_at(redis.url, output, TOKEN)):
        yield listener


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    connection.settimeout(LONGEST)
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def test_a_request_that_is_never_whole_loses_its_connection(
    redis_server: EmbeddedRedis, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "SECONDS", 0.5)
    with served(redis_server, output) as listener:
        clients = {name: socket.create_connection(listener.socket.getsockname()) for name in HALVES}
        for name, sent in HALVES.items():
            clients[name].sendall(sent)
        came = {name: rest(client) for name, client in clients.items()}
        for client in clients.values():
            client.close()
    assert {name for name, found in came.items() if found} == {"a second one"}
    assert came["a second one"].endswith(b"ok\n")


def test_a_whole_request_is_answered_however_long_that_takes(
    redis_server: EmbeddedRedis, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gives a wrong token is kept waiting for half a second."""
    monkeypatch.setattr(connection_limits, "SECONDS", 0.2)
    with served(redis_server, output) as listener:
        sent = urllib.request.Request(f"{listener.url}/sign-in", b"token=x")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(sent, timeout=LONGEST)


def test_there_are_never_more_connections_than_descriptors_allow(
    redis_server: EmbeddedRedis, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 >= connection_limits.MOST
    monkeypatch.setattr(connection_limits, "SECONDS", LONGEST)
    monkeypatch.setattr(connection_limits, "MOST", 3)
    with served(redis_server, output) as listener, ExitStack() as stack:
        address = listener.socket.getsockname()
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(5)]
        assert [rest(client) for client in clients[3:]] == [b"", b""]
        clients[0].sendall(WHOLE)
        assert clients[0].recv(15) == b"HTTP/1.1 200 OK"


@pytest.fixture
def large(output: Output) -> bytes:
    """What asks for a picture that is more than the buffers of a connection."""
    folder = output.shard_folder(0)
    folder.mkdir(parents=True)
    name, data = f"{output.names.key(0, 0)}.png", b"\x89PNG\r\n\x1a\n" + bytes(LARGE)
    (folder / name).write_bytes(data)
    told = {"file_name": name, "image_id": "0" * 16, "sha256": hashlib.sha256(data).hexdigest()}
    output.metadata_file(0).write_text(f"{json.dumps(told)}\n", "utf-8")
    path = f"/outputs/{key_of(output.label)}/0/0/file"
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    return f"{head}\r\n".encode()


def test_a_slow_client_gets_all_of_its_answer(
    redis_server: EmbeddedRedis, output: Output, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "SECONDS", 0.1)
    with served(redis_server, output) as listener, socket.socket() as client:
        client.connect(listener.socket.getsockname())
        client.sendall(large)
        time.sleep(1.0)  # it is slower than that
        assert len(rest(client)) > LARGE


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux closes them")
def test_a_client_that_does_not_take_its_answer_loses_its_connection(
    redis_server: EmbeddedRedis,
    output: Output,
    large: bytes,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "UNREAD_SECONDS", 1)
    with served(redis_server, output) as listener, socket.socket() as client:
        client.settimeout(LONGEST)
        client.connect(listener.socket.getsockname())
        client.sendall(large)
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        wait_until(lambda: not connections_at(listener.url), "it is closed")
