"""An object store on loopback, and a way to it that a test can break."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.lifeline import start_tied
from tests.object_store.fault import Fault, Kind
from tests.ports import free_port
from tests.started import Started
from tests.waiting import LONGEST

_ROOT = Path(__file__).parents[2]
_BACKLOG = 512
REGION = "us-east-1"
_SERVER_SETTINGS = {"S3_UPLOAD_PART_MIN_SIZE": "256", "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(5 << 20)}
"""Parts may be smaller than S3's 5 MiB, so that tests may upload little in parts; moto then keeps little in
memory of an object, unless it is told how much."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed of one kind of requests: how many, and the bytes of their bodies and of their answers'."""

    requests: int = 0
    received: int = 0
    sent: int = 0


class BreakableStore(Started):
    """An S3-speaking server and the faulty way to it, a process each; both end with this process.

    The server holds its objects in memory: it is not for killing. `endpoint` leads through the faulty way,
    `direct` past it, for who judges what is stored.
    """

    def __init__(self) -> None:
        self.key_id = f"KEY{secrets.token_hex(8).upper()}"
        self.secret = secrets.token_urlsafe(24)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.endpoint = self.direct = ""
        self._control = ("", 0)

    @property
    def alive(self) -> bool:
        """Whether both processes run."""
        return bool(self._processes) and all(process.poll() is None for process in self._processes)

    def start(self) -> None:
        """Starts both, and waits until the server answers."""
        with _listener() as server, _listener() as way, _listener() as control:
            port = server.getsockname()[1]
            self.direct = f"http://127.0.0.1:{port}"
            self.endpoint = f"http://127.0.0.1:{way.getsockname()[1]}"
            self._control = control.getsockname()
            self._run("server", [server], [])
            self._run("faulty_proxy", [way, control], [str(port), self.key_id])
        self.empty()

    def stop(self) -> None:
        """Ends both, whatever state they are in."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait(LONGEST)
        self._processes.clear()

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What a client of the store needs in its environment; by default it takes the faulty way."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint if endpoint is None else endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    # What is stored.

    def empty(self) -> None:
        """Takes every bucket away, every order and every count."""
        self._call("POST", "/moto-api/reset")
        self.withdraw()
        self.forget()

    def make_bucket(self, name: str) -> None:
        """Makes an empty bucket."""
        self._call("PUT", f"/{name}")

    def check(self, what: str) -> None:
        """What the server checks from now on, until it is emptied: one of `server.CHECKS`."""
        self._call("POST", f"/checks/{what}")

    # The way.

    def order(self, fault: Fault) -> int:
        """Has the way do something to requests from now on; returns the number of the order."""
        return int(self._tell("order", fault.to_mapping()))

    def taken(self, number: int) -> int:
        """How many requests an order has taken."""
        return int(self._tell("taken", number))

    def withdraw(self) -> None:
        """Ends all orders, and refusing: what is asked for from now on passes."""
        self._tell("withdraw", None)

    def refuse(self, seconds: float) -> None:
        """Cuts all connections, and refuses others for a time."""
        self._tell("refuse", seconds)

    def traffic(self, *kinds: Kind) -> Traffic:
        """What came to the way since `forget`, of some kinds or of all; also what it did not pass on."""
        counted: dict[str, list[int]] = self._tell("traffic", None)
        wanted: Iterable[str] = kinds if kinds else counted
        return Traffic(*(sum(counted.get(kind, [0, 0, 0])[place] for kind in wanted) for place in range(3)))

    def forget(self) -> None:
        """Counts from nought again."""
        self._tell("forget", None)

    def _run(self, module: str, listeners: list[socket.socket], arguments: list[str]) -> None:
        numbers = [listener.fileno() for listener in listeners]
        argv = [sys.executable, "-m", f"tests.object_store.{module}", *map(str, numbers), *arguments]
        env = os.environ | _SERVER_SETTINGS
        self._processes.append(start_tied(argv, env=env, pass_fds=numbers, cwd=_ROOT))

    def _call(self, method: str, path: str) -> None:
        with urllib.request.urlopen(
            urllib.request.Request(self.direct + path, method=method), timeout=LONGEST
        ) as answer:
            answer.read()

    def _tell(self, name: str, argument: object) -> Any:
        with (
            socket.create_connection(self._control, LONGEST) as connection,
            connection.makefile("rwb") as lines,
        ):
            lines.write(json.dumps({"name": name, "argument": argument}).encode() + b"\n")
            lines.flush()
            return json.loads(lines.readline())


def _listener() -> socket.socket:
    """A listening socket on a port that can be had again, for no outgoing connection is given it."""
    return socket.create_server(("127.0.0.1", free_port()), backlog=_BACKLOG)
