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


CHECKS = ("parts", "copies", "nothing")
"""Where the server heeds `If-None-Match: *`: at a put and the end of an upload in parts, as moto does; also
at a copy, as S3 does since October 2025; nowhere, and no `If-Match` either."""
_CHECKS = "/checks/"
_TAKEN = (
    b'<?xml version="1.0"?>\n<Error><Code>PreconditionFailed</Code><Message>At least one of the '
    b"pre-conditions you specified did not hold</Message><Condition>If-None-Match</Condition></Error>"
)


class OneAtATime:
    """Has moto's S3 answer one whole request after the other."""

    def __init__(self) -> None:
        # Moto's own dispatcher looks for the service in a listing of its folders, twice a request.
        self._s3: Application = create_backend_app("s3")
        self._moto: Application = create_backend_app("moto_api")
        self._lock = threading.Lock()
        self._checks = CHECKS[0]

    def __call__(self, environ: Environ, start: Start) -> list[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            # A cut body: S3 stores nothing of it.
            start("400 Bad Request", [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        environ["wsgi.input"] = io.BytesIO(body)
        path = environ["PATH_INFO"]
        with self._lock:
            if path.startswith(_CHECKS):
                self._checks = path.removeprefix(_CHECKS)
                status, headers, content = "204 No Content", [], b""
            elif path.startswith("/moto-api/"):
                self._checks = CHECKS[0]  # a reset
                status, headers, content = _answered(self._moto, environ)
            elif self._is_taken(environ):
                status, headers, content = "412 Precondition Failed", [], _TAKEN
            else:
                if self._checks == "nothing":
                    for name in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"):
                        environ.pop(name, None)
                status, headers, content = _answered(self._s3, environ)
        if environ["REQUEST_METHOD"] != "HEAD":
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(len(content))))
        start(status, headers)
        return [content]

    def _is_taken(self, environ: Environ) -> bool:
        """Whether the request is a copy to a name that must be free, and is not."""
        asked = environ.get("HTTP_IF_NONE_MATCH") == "*" and "HTTP_X_AMZ_COPY_SOURCE" in environ
        if self._checks != "copies" or not asked or "uploadId" in environ["QUERY_STRING"]:
            return False
        look = environ | {"REQUEST_METHOD": "HEAD", "CONTENT_LENGTH": "0", "wsgi.input": io.BytesIO()}
        for name in ("HTTP_IF_NONE_MATCH", "HTTP_X_AMZ_COPY_SOURCE"):
            del look[name]
        return _answered(self._s3, look)[0].startswith("200")


def _answered(application: Application, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes]:
    started: list[tuple[str, list[tuple[str, str]]]] = []
    answer = application(environ, lambda status, headers, *_: started.append((status, headers)))
    content = b"".join(answer)
    if (close := getattr(answer, "close", None)) is not None:
        close()
    return *started[-1], content


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
