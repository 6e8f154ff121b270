"""A way to Redis that can forget its connections, as a firewall does, or cut them."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from contextlib import suppress
from urllib.parse import urlsplit

from tests.started import Started

_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset."""


class HalfOpenWay(Started):
    """Forwards connections to a server on loopback, until it is told to cut or to forget them."""

    def __init__(self, url: str) -> None:
        """Listens at once; `url`: a Redis' URL, as those who are to go this way have it in `self.url`."""
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        port = self._listener.getsockname()[1]
        self.url = url.replace(f":{parts.port}/", f":{port}/")
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._open: list[tuple[socket.socket, socket.socket, threading.Event]] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def start(self) -> None:
        """Takes connections from now on; those that came before wait for it."""
        self._threads[0].start()

    def stop(self) -> None:
        """Takes none any more, and cuts those that there are."""
        self._ended.set()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def forget(self) -> int:
        """Forwards nothing more of the connections that there are, and closes none; returns how many.

        Who writes to them gets no error, and who reads no end.
        """
        with self._lock:
            going = [forgotten for _, _, forgotten in self._open if not forgotten.is_set()]
        for forgotten in going:
            forgotten.set()
        return len(going)

    def cut(self) -> int:
        """Resets the connections that there are; returns how many."""
        with self._lock:
            cut, self._open = self._open, []
        for ours, theirs, forgotten in cut:
            forgotten.set()
            for one in (ours, theirs):
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                one.close()
        return len(cut)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(self._target, 5)
            except OSError:
                continue
            forgotten = threading.Event()
            with self._lock:
                self._open.append((ours, theirs, forgotten))
            thread = threading.Thread(target=self._forward, args=(ours, theirs, forgotten), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _forward(self, ours: socket.socket, theirs: socket.socket, forgotten: threading.Event) -> None:
        """Copies both ways until one side ends; of a forgotten connection nothing is read any more."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(ours, selectors.EVENT_READ, theirs)
                selector.register(theirs, selectors.EVENT_READ, ours)
                while not forgotten.is_set():
                    for key, _ in selector.select(0.05):
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        if forgotten.is_set():
                            return
                        if not data:
                            raise OSError("one side ended")
                        key.data.sendall(data)
        except (OSError, ValueError):  # cut here, or ended there
            ours.close()
            theirs.close()
