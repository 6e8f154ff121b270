"""A Redis of the test's own, and one with the users that deploy/redis_acl.sh prints."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from producer.embedded_redis import find_binary
from tests.ports import free_port
from tests.waiting import WaitUntil

ROOT = Path(__file__).parents[1]
PASSWORDS = {name: f"secret-of-{name}" for name in ("producer", "worker", "flower", "admin")}


@dataclass
class Server:
    """A Redis that was started with options of the test's own."""

    folder: Path
    process: subprocess.Popen[bytes]
    port: int
    url: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def url_of(self, user: str) -> str:
        """The URL of one of the users in PASSWORDS."""
        return f"redis://{user}:{PASSWORDS[user]}@127.0.0.1:{self.port}/0"

    def client(self, user: str) -> redis.Redis:
        return redis.Redis.from_url(self.url_of(user))


def start_redis(folder: Path, url: str, port: int, *options: str | Path) -> Server:
    """Starts a server on loopback that keeps nothing; `url` has {port} in it."""
    common = ["--bind", "127.0.0.1", "--dir", folder, "--save", ""]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([find_binary(), *common, *options], stdout=log, stderr=log)
    return Server(folder, process, port, url.format(port=port))


def answers(server: Server) -> bool:
    assert server.process.poll() is None, (server.folder / "redis.log").read_text()
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", server.port)) == 0


def print_users(**others: str) -> subprocess.CompletedProcess[str]:
    """Runs deploy/redis_acl.sh with PASSWORDS, or others, in its environment."""
    passwords = {f"REDIS_{name.upper()}_PASSWORD": word for name, word in PASSWORDS.items()} | others
    script = ROOT / "deploy" / "redis_acl.sh"
    return subprocess.run(
        ["sh", script], env=os.environ | passwords, capture_output=True, text=True, check=False
    )


@pytest.fixture
def guarded(tmp_path: Path, wait_until: WaitUntil) -> Iterator[Server]:
    """A Redis with the users that deploy/redis_acl.sh prints, and an admin to look on."""
    printed = print_users().stdout
    assert not any(word in printed for word in PASSWORDS.values())
    folder = tmp_path / "guarded"
    folder.mkdir()
    (folder / "users.acl").write_text(f"{printed}user admin on >{PASSWORDS['admin']} ~* &* +@all\n")
    port = free_port()
    url = f"redis://admin:{PASSWORDS['admin']}@127.0.0.1:{{port}}/0"
    server = start_redis(folder, url, port, "--port", str(port), "--aclfile", folder / "users.acl")
    try:
        wait_until(lambda: answers(server), "Redis answers")
        yield server
    finally:
        server.process.kill()
        server.process.wait()
