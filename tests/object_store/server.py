"""An S3-speaking server, moto's, as a process of its own: `python -m tests.object_store.server FD`.

It takes one request at a time, each with its whole body: moto looks for a key and then sets it, so of two
conditional puts at once both would succeed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from jobs.lifeline import end_with_parent

Environ = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], object]
Application = Callable[..., Iterable[bytes]]


class Handler(MotoRequestHandler):
    """Keeps connections open, and says nothing."""

    protocol_version = "HTTP/1.1"
    # Small answers must not wait for the peer's acknowledgement of the head before them.
    wbufsize = -1
    disable_nagle_algorithm = True

    def finish(self) -> None:
        """Ends the connection; what the peer no longer takes is of no interest."""
        with contextlib.suppress(OSError):
            super().finish()


class OneAtATime:
    """Has moto's S3 answer one whole request after the other."""

    def __init__(self) -> None:
        # Moto's own dispatcher looks for the service in a listing of its folders, twice a request.
        self._s3: Application = create_backend_app("s3")
        self._moto: Application = create_backend_app("moto_api")
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start: Start) -> list[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            # A cut body: S3 stores nothing of it.
            start("400 Bad Request", [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        environ["wsgi.input"] = io.BytesIO(body)
        started: list[tuple[str, list[tuple[str, str]]]] = []
        with self._lock:
            application = self._moto if environ["PATH_INFO"].startswith("/moto-api/") else self._s3
            answer = application(environ, lambda status, headers, *_: started.append((status, headers)))
            content = b"".join(answer)
            if (close := getattr(answer, "close", None)) is not None:
                close()
        status, headers = started[-1]
        if environ["REQUEST_METHOD"] != "HEAD":
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(len(content))))
        start(status, headers)
        return [content]


def main() -> None:
    """Serves on the listening socket whose number is the first argument, until the parent ends."""
    end_with_parent(grace=1)
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    descriptor = int(sys.argv[1])
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        host, port = listener.getsockname()
    server = make_server(host, port, OneAtATime(), threaded=True, request_handler=Handler, fd=descriptor)
    server.serve_forever()


if __name__ == "__main__":
    main()
