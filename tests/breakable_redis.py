"""A Redis that a test can kill, freeze, cut short and start again on its data."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis

from jobs.lifeline import start_tied_program
from producer.embedded_redis import find_binary
from tests.ports import free_port
from tests.started import Started
from tests.waiting import LONGEST, wait_until


class BreakableRedis(Started):
    """A server on loopback with one port and one password for its whole life, whatever happens to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        port = free_port()
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

    def stop(self) -> None:
        """Ends the server, whatever state it is in."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self.kill()

    def start(self) -> None:
        """Starts the server on the data that there is, and waits until it answers."""

        def answers() -> bool:
            # While nobody listened another server may have taken the port: it is tried until it is free.
            if self._process is None or self._process.poll() is not None:
                self._process = start_tied_program([str(find_binary()), "redis.conf"], cwd=self.folder)
            try:
                self.pid = int(self.client.info("server")["process_id"])
            except redis.RedisError:
                return False
            return True

        wait_until(answers, "Redis answers")

    def kill(self, signal_number: int = signal.SIGKILL, between: Callable[[], None] = lambda: None) -> None:
        """Ends the server, by SIGTERM in good order; calls `between` once it is gone."""
        assert self._process is not None
        os.kill(self.pid, signal_number)
        self._process.wait(LONGEST)
        between()

    def cut_tail(self, count: int) -> None:
        """Takes the last bytes off the file that commands are appended to."""
        file = max((self.folder / "appendonlydir").glob("*.incr.aof"), key=lambda file: file.stat().st_mtime)
        os.truncate(file, max(0, file.stat().st_size - count))
