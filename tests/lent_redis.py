"""One Redis for the tests of a process, which get it one after the other, each as if it were new."""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import suppress
from pathlib import Path

import redis

from producer.embedded_redis import EmbeddedRedis

_CONFIGURED = {"maxmemory": "0", "maxmemory-policy": "noeviction"}
"""What tests change."""


class LentRedis:
    """Starts a server when there is none, or when the last test broke it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0
        self._server: EmbeddedRedis | None = None

    def lend(self) -> EmbeddedRedis:
        """The server, empty, with a new password and no client: what an earlier test left cannot reach it."""
        if self._server is not None:
            with suppress(redis.RedisError):
                _empty(self._server)
                return self._server
            self.stop()
        self._started += 1
        server = EmbeddedRedis(folder=self._folder / str(self._started))
        server.start()
        self._server = server
        return server

    def stop(self) -> None:
        """Ends the server, whatever state it is in."""
        if self._server is not None:
            if self._server.alive:
                with suppress(ProcessLookupError):
                    os.kill(self._server.pid, signal.SIGCONT)
            self._server.stop()
            self._server = None


def _empty(server: EmbeddedRedis) -> None:
    """Raises RedisError when the server is not there or is not the one that was started."""
    password = secrets.token_urlsafe(32)
    with redis.Redis.from_url(server.url, socket_timeout=5, socket_connect_timeout=5) as client:
        if client.info("server")["process_id"] != server.pid:
            raise redis.RedisError("another server answers")
        client.config_set("requirepass", password)
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
        for name, value in _CONFIGURED.items():
            client.config_set(name, value)
        for user in client.acl_users():
            if user != "default":
                client.acl_deluser(user)
        client.flushall()
        client.script_flush()
        client.config_resetstat()
    server.url = f"redis://:{password}@{server.url.rpartition('@')[2]}"
