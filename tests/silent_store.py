"""An object store that takes requests and says nothing, until it is told to."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.started import Started


class SilentStore(Started):
    """Listens on loopback. Who waits for it when it stops is refused."""

    def __init__(self) -> None:
        self.asked = 0
        """Requests that came."""
        self._lock, self._speaks = threading.Lock(), threading.Event()
        store = self

        class Silent(BaseHTTPRequestHandler):
            """Answers nothing until the store stops."""

            def do_GET(self) -> None:
                """Counts the request and waits."""
                with store._lock:
                    store.asked += 1
                store._speaks.wait()
                self.send_response(403)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self.place = f"s3://silent-{self._port}/foxes"
        """An output in it: of a bucket of its own, for connections are remembered by their bucket."""
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def lead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes every bucket of this process one of this store, until the test ends."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self._port}")
        for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "x")

    def start(self) -> None:
        """Takes requests from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Refuses what waits, and ends."""
        self._speaks.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
