"""A Redis that a test can kill, freeze, cut short and start again on its data."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from jobs.lifeline import start_tied_program
from producer.embedded_redis import find_binary


class BreakableRedis:
    """A server on loopback with one port and one password for its whole life, whatever happens to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        password = secrets.token_urlsafe(16)
        (folder / "redis.conf").write_text(
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\nlogfile redis.log\ndir ./\n"
            'save ""\nappendonly yes\nappendfsync everysec\naof-load-truncated yes\n'
            "maxmemory-policy noeviction\n"
        )
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        self.client = redis.Redis.from_url(self.url, socket_timeout=5)
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            self.kill()

    def start(self) -> None:
        """Starts the server on the data that there is, and waits until it answers."""
        self._process = start_tied_program([str(find_binary()), "redis.conf"], cwd=self.folder)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.pid = int(self.client.info("server")["process_id"])
                return
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def kill(self, signal_number: int = signal.SIGKILL, between: Callable[[], None] = lambda: None) -> None:
        """Ends the server, by SIGTERM in good order; calls `between` once it is gone."""
        assert self._process is not None
        os.kill(self.pid, signal_number)
        self._process.wait(20)
        between()

    def cut_tail(self, count: int) -> None:
        """Takes the last bytes off the file that commands are appended to."""
        file = max((self.folder / "appendonlydir").glob("*.incr.aof"), key=lambda file: file.stat().st_mtime)
        os.truncate(file, max(0, file.stat().st_size - count))
