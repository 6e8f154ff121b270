"""HTTP messages on the way to an object store: a head, and a body of the length that the head says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

PIECE = 1 << 18
"""Bytes of a body at a time."""


class Ended(Exception):
    """The other side closed the connection."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers, as they came, ending in an empty line."""

    raw: bytes
    first: list[str]
    """The first line's three words."""
    headers: dict[str, str]
    """By names in lower case."""

    @property
    def length(self) -> int:
        """Bytes of the body that the head announces."""
        return int(self.headers.get("content-length", "0"))


async def read_head(reader: asyncio.StreamReader) -> Head:
    """The next message's head; raises Ended when there is none, ValueError for a body of unknown length."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Ended from error
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "transfer-encoding" in headers:
        raise ValueError("a body in chunks: only bodies of a stated length pass here")
    return Head(raw, first.split(" ", 2), headers)


class Link:
    """Lets so many bytes a second through, of all who pass them; also of those that nobody waits for."""

    def __init__(self, rate: int) -> None:
        self.rate, self._free_at = rate, 0.0

    async def passed(self, size: int) -> None:
        """Returns when so many bytes have passed, after those of others that came before."""
        self._free_at = max(time.monotonic(), self._free_at) + size / self.rate
        await asyncio.sleep(self._free_at - time.monotonic())


async def read_body(
    reader: asyncio.StreamReader, length: int, *, link: Link | None = None
) -> AsyncIterator[bytes]:
    """The pieces of a body, as they pass the link; raises Ended when it ends early."""
    most = PIECE if link is None else max(1, link.rate // 20)
    while length:
        try:
            piece = await reader.read(min(most, length))
        except ConnectionError as error:
            raise Ended from error
        if not piece:
            raise Ended
        length -= len(piece)
        yield piece
        if link is not None:
            await link.passed(len(piece))
