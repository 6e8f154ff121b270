"""Limits of connections that uvicorn does not have: how long a request may take, how many there may be."""

from __future__ import annotations

import asyncio
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 10.0
"""From the beginning of a connection, or from the answer before, to a request's last byte."""


def _most() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000 if soft == resource.RLIM_INFINITY else min(soft // 2, 1_000)


MOST = _most()
"""Connections at a time: half of the descriptors. With none left, asyncio prints 15,000 lines a second."""


class LimitedH11Protocol(H11Protocol):
    """Closes a connection whose request is not whole in time, and one too many."""

    _timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Begins to count once a request is awaited, and ends when it is whole."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) or self.transport.is_closing():
            self._unwatch()
        elif self._timeout is None:
            # What is on its way to a slow client goes on.
            self._timeout = self.loop.call_later(SECONDS, self.transport.close)

    def _unwatch(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
