"""A Hugging Face hub of one repository at one commit, on a local port."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = "someone/something"
COMMIT = "1" * 40


class Hub:
    """Serves the files of a folder; `asked` keeps the names of those that were downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.gate = threading.Event()
        """Unless it is set, weights stop in the middle."""
        self.gate.set()
        self.halfway = threading.Event()
        """Set once some weights are halfway."""
        self.url = ""

    def tree(self) -> list[dict[str, object]]:
        """What the hub lists of the commit."""
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return [
            {
                "type": "file",
                "path": path.relative_to(self.folder).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in files
        ]


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """The hub of a folder, as long as the context lasts."""
    hub = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.split("?")[0]
            files = f"/{MODEL}/resolve/{COMMIT}/"
            if path == f"/api/models/{MODEL}/tree/{COMMIT}":
                self._send(json.dumps(hub.tree()).encode(), "application/json", with_body)
            elif path.startswith(files) and (file := hub.folder / path.removeprefix(files)).is_file():
                if with_body:
                    hub.asked.append(path.removeprefix(files))
                self._send(file.read_bytes(), "application/octet-stream", with_body)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()

        def _send(self, body: bytes, kind: str, with_body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if not with_body:
                return
            if self.path.endswith(".safetensors") and not hub.gate.is_set():
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                hub.halfway.set()
                hub.gate.wait()
                body = body[len(body) // 2 :]
            self.wfile.write(body)

        def log_message(self, *_given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
