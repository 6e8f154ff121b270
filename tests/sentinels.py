"""A master, a replica and three Sentinels on loopback, and what can befall the master."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import redis

from jobs.lifeline import start_tied_program
from producer.embedded_redis import find_binary
from tests.ports import free_port
from tests.started import Started
from tests.waiting import wait_until

NAME = "mill"
DOWN_AFTER = 1000
"""Milliseconds without an answer after which a Sentinel holds the master to be down."""


class _Server:
    """One process of the set, which can be started again at its port."""

    def __init__(self, folder: Path, config: str, *arguments: str) -> None:
        self.folder, self.port = folder, free_port()
        self._arguments = arguments
        folder.mkdir(mode=0o700)
        (folder / "server.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\nlogfile log\ndir ./\n{config}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [str(find_binary()), "server.conf", *self._arguments, *options]
        self._process = start_tied_program(command, cwd=self.folder)

    @property
    def pid(self) -> int:
        """The server's own process, under the shell that ties it to this one."""
        assert self._process is not None
        return next(
            child.pid
            for child in psutil.Process(self._process.pid).children()
            if "server" in child.name() or "sentinel" in child.name()
        )

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(StopIteration, psutil.NoSuchProcess, ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._process.wait()


class Sentinels(Started):
    """As a farm's server: its `url` names the Sentinels, and `pid` is the master's at present."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        self._password, self._watchword = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        config = (
            f'requirepass {self._password}\nmasterauth {self._password}\nsave ""\n'
            "repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\nmaxmemory-policy noeviction\n"
        )
        self._servers = [_Server(folder / name, config) for name in ("one", "two")]
        watching = (
            f"requirepass {self._watchword}\nsentinel sentinel-pass {self._watchword}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {self._servers[0].port} 2\n"
            f"sentinel auth-pass {NAME} {self._password}\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}\n"
            f"sentinel failover-timeout {NAME} 4000\n"
        )
        self._watchers = [_Server(folder / f"sentinel{n}", watching, "--sentinel") for n in range(3)]
        places = ";".join(f"127.0.0.1:{watcher.port}" for watcher in self._watchers)
        self.url = (
            f"sentinel://:{self._password}@{places}/0?master_name={NAME}&sentinel_password={self._watchword}"
        )

    def start(self) -> None:
        """Starts them; returns when the Sentinels know the replica."""
        first, second = self._servers
        first.start()
        second.start("--replicaof", f"127.0.0.1 {first.port}")
        # A Sentinel asks for replicas when it starts, and then every ten seconds.
        wait_until(self._linked, "the replica follows the master")
        for watcher in self._watchers:
            watcher.start()
        self.whole()

    def stop(self) -> None:
        """Ends them, whatever state they are in."""
        for server in (*self._watchers, *self._servers):
            server.kill()

    @property
    def pid(self) -> int:
        return self._master().pid

    def place_of_master(self) -> tuple[str, int]:
        """The password and the port of the master."""
        return self._password, self._master().port

    def master_killed(self) -> None:
        """kill -9; the old master comes back, empty, as a replica of the new one."""
        old = self._master()
        old.kill()
        new = self._moved_from(old)
        old.start("--replicaof", f"127.0.0.1 {new.port}")

    def master_hangs(self) -> None:
        """SIGSTOP until there is another; then it wakes up, and holds itself to be the master for a while."""
        old = self._master()
        os.kill(old.pid, signal.SIGSTOP)
        try:
            self._moved_from(old)
        finally:
            os.kill(old.pid, signal.SIGCONT)

    def master_replaced(self) -> None:
        """SENTINEL FAILOVER: for seconds both answer as masters, and connections stay with the old one."""
        old = self._master()
        for watcher in self._watchers:
            with suppress(redis.ResponseError):  # it may be too early for another
                self._ask(watcher, "SENTINEL", "FAILOVER", NAME)
                break
        self._moved_from(old)

    @contextmanager
    def replica_frozen(self) -> Iterator[None]:
        """SIGSTOP of the replica, for less than a Sentinel takes to notice or more."""
        replica = next(server for server in self._servers if server.port != self._port())
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(replica.pid, signal.SIGCONT)

    def whole(self) -> None:
        """Waits until the Sentinels see each other, a master and a replica that has what the master has."""
        wait_until(self._settled, "the set is whole")

    def sentinel_killed(self) -> None:
        """kill -9 of the Sentinel that the URL names first."""
        self._watchers[0].kill()

    def _moved_from(self, old: _Server) -> _Server:
        wait_until(lambda: self._port() not in (None, old.port), "the Sentinels name another master")
        return self._master()

    def _master(self) -> _Server:
        return next(server for server in self._servers if server.port == self._port())

    def _port(self) -> int | None:
        """Where most of the Sentinels say that the master is."""
        said = [self._ask(watcher, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME) for watcher in self._watchers]
        ports = [int(answer[1]) for answer in said if answer]
        return next((port for port in ports if ports.count(port) >= 2), None)

    def _settled(self) -> bool:
        """Whether Sentinels, master and replica all see each other."""
        known = [self._ask(watcher, "SENTINEL", "MASTER", NAME) for watcher in self._watchers]
        facts = [one for one in known if one]
        if len(facts) < 2 or not all(_count(one, "num-slaves") == 1 for one in facts):
            return False
        return all(_count(one, "num-other-sentinels") == 2 for one in facts) and self._linked()

    def _linked(self) -> bool:
        """Whether one server is a replica that follows the other."""
        roles = sorted((self._role(server) for server in self._servers), key=lambda role: bytes(role[0]))
        return [role[0] for role in roles] == [b"master", b"slave"] and roles[1][3] == b"connected"

    def _role(self, server: _Server) -> Any:
        with redis.Redis(port=server.port, password=self._password, socket_timeout=2) as client:
            try:
                return client.execute_command("ROLE")
            except redis.RedisError:
                return [b"away"]

    def _ask(self, watcher: _Server, *question: str) -> Any:
        """A Sentinel's answer as it came; None from one that does not answer."""
        with redis.Redis(port=watcher.port, password=self._watchword, socket_timeout=2, protocol=2) as client:
            client.response_callbacks.clear()
            try:
                return client.execute_command(*question)
            except redis.ResponseError:
                raise
            except redis.RedisError:
                return None


def _count(facts: list[bytes], name: str) -> int:
    """A number of a Sentinel's list of names and values."""
    return int(facts[facts.index(name.encode()) + 1])
