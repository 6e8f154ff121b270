"""The pages served at an address of this machine, in a thread of this process."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from jobs.errors import SettingsError

if TYPE_CHECKING:
    from uvicorn import Server

    from producer.serve.site import Site

LOOPBACK: Final = ("127.0.0.0/8", "::1")
"""Proxies that are believed if nobody says otherwise: those of this machine."""
_NEEDED: Final = ("starlette", "uvicorn", "jinja2", "prometheus_client")
_STOP_SECONDS: Final = 5.0
_BACKLOG: Final = 128
"""Connections that are taken at once, and that may wait."""
UNREAD_SECONDS = 60
"""After which a client that takes nothing of what it was sent loses its connection."""


def is_installed() -> bool:
    """Whether the extra `serve` is there."""
    return all(find_spec(name) is not None for name in _NEEDED)


def check_installed() -> None:
    """Raises SettingsError where the extra `serve` is not there."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"the pages need {', '.join(missing)}, which this Python does not have: "
            "pip install 'imagemill[serve]'"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host's name or address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that takes connections; they wait until the pages are ready."""

    socket: socket.socket
    url: str
    """The address for a browser of this machine, without a slash at its end."""
    elsewhere: str = ""
    """The same for browsers of other machines, where all addresses of this one are served."""


def listen(host: str, port: int) -> Listener:
    """Takes a port of this machine; 0 is any that is free. Raises SettingsError."""
    try:
        [family, kind, protocol, _, address] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError:
        raise SettingsError(f"--host {host}: is no name that a machine can have") from None
    except OSError as error:
        raise SettingsError(f"--host {host}: is no address of this machine ({error.strerror})") from None
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; each connection inherits it
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
        taken.bind(address)
        taken.listen(_BACKLOG)
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} of {host} is in use: name another, or --port 0 for any that is free"
            ) from None
        raise SettingsError(f"{host}, port {port}: cannot be served ({error.strerror})") from None
    at = taken.getsockname()[1]
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    shown = everywhere.get(host, host)
    return Listener(
        taken,
        url=f"http://{f'[{shown}]' if ':' in shown else shown}:{at}",
        elsewhere=f"http://{socket.gethostname()}:{at}" if host in everywhere else "",
    )


class Serving:
    """The thread that serves."""

    def __init__(
        self,
        listener: Listener,
        site: Callable[[], Site],
        proxies: Sequence[str] = LOOPBACK,
        failed: Callable[[BaseException], object] = lambda _: None,
    ) -> None:
        """`site`: called in the thread, for what it imports takes long. `proxies`: the addresses and networks
        whose word is taken for how a visitor came: by https or http. `failed`: called in the thread with what
        ends it, if `stop` does not."""
        self._socket, self._site, self._proxies, self._failed = listener.socket, site, proxies, failed
        self._server: Server | None = None
        self._stopped = threading.Event()
        self.failure: BaseException | None = None
        """What ended the thread, if `stop` did not."""
        self._thread = threading.Thread(target=self._run, name="serve", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self) -> None:
        """Waits until the thread ends. Raises its failure."""
        while self._thread.is_alive():
            self._thread.join(1.0)
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Ends the thread; connections that are open are closed."""
        self._stopped.set()
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # a SystemExit ends a thread without a word
            self._socket.close()  # visitors would wait for an answer without end
            if not self._stopped.is_set():
                self.failure = error
                self._failed(error)

    def _serve(self) -> None:
        import uvicorn

        from producer.serve.app import create_app
        from producer.serve.connection_limits import LimitedH11Protocol

        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(self._site()),
                loop="asyncio",
                http=LimitedH11Protocol,
                ws="none",
                lifespan="off",
                backlog=_BACKLOG,
                log_config=None,
                log_level="error",  # warnings tell what strangers send, and give wrong advice
                access_log=False,  # an address may hold a token
                server_header=False,
                proxy_headers=True,
                forwarded_allow_ips=[*self._proxies],
                timeout_graceful_shutdown=1,
            )
        )
        if not self._stopped.is_set():
            self._server.run(sockets=[self._socket])


@contextmanager
def serving(
    listener: Listener,
    site: Callable[[], Site],
    proxies: Sequence[str] = LOOPBACK,
    failed: Callable[[BaseException], object] = lambda _: None,
) -> Iterator[Serving]:
    """Serves a site until the block ends; the arguments are those of `Serving`."""
    served = Serving(listener, site, proxies, failed)
    served.start()
    try:
        yield served
    finally:
        served.stop()
