"""The way to an object store, with orders what to do to requests: a process of its own.

`python -m tests.object_store.faulty_proxy LISTENER CONTROL PORT KEY_ID`: the numbers of two listening
sockets, the store's port on loopback, and the id of the access key that requests must be signed with. CONTROL
takes lines of JSON, `{"name": …, "argument": …}`, and answers each with another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator
from typing import Any

from jobs.lifeline import end_with_parent
from tests.object_store.fault import STATUSES, Action, Fault, FaultBook, Kind, kind_of
from tests.object_store.messages import PIECE, Ended, Head, Link, read_body, read_head

_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset."""
_BODILESS = ("204", "304")
_FAREWELL = 5.0
"""Seconds for the client to close a connection that was ended in good order."""
_PASS = Fault(Action.DELAY, seconds=0)


def cut(writer: asyncio.StreamWriter) -> None:
    """Resets a connection that is open."""
    if (opened := writer.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    writer.transport.abort()


def error(status: int, reason: str, code: str, message: str) -> bytes:
    """An answer of S3 that says what went wrong."""
    body = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Proxy:
    """Passes requests on to the store, unless an order says otherwise."""

    def __init__(self, port: int, key_id: str) -> None:
        self._port = port
        self._key_id = key_id
        self._open: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None
        self._refusing: asyncio.Task[None] | None = None
        self._numbers = ("", 0)
        self.book = FaultBook()
        self.traffic: dict[Kind, list[int]] = {}
        self._links: dict[Fault, Link] = {}

    async def listen(self, listener: socket.socket) -> None:
        """Takes connections from now on."""
        self._numbers = listener.getsockname()
        self._listening = await asyncio.start_server(self._serve, sock=listener, limit=PIECE)

    async def refuse(self, seconds: float) -> None:
        """Cuts every connection and refuses others for a time."""
        assert self._listening is not None
        if self._refusing is not None:
            self._refusing.cancel()
        self._listening.close()
        for writer in list(self._open):
            cut(writer)

        async def listen_again() -> None:
            await asyncio.sleep(seconds)
            await self.accept()

        self._refusing = asyncio.create_task(listen_again())

    async def accept(self) -> None:
        """Refuses nothing any more."""
        refusing, self._refusing = self._refusing, None
        if refusing is not None:
            await self.listen(socket.create_server(self._numbers, backlog=512))
            if refusing is not asyncio.current_task():
                refusing.cancel()

    def link(self, fault: Fault) -> Link:
        """What the bodies of a slow request pass: one of its own, or that of all of the order."""
        return self._links.setdefault(fault, Link(fault.rate)) if fault.shared else Link(fault.rate)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes the requests of one connection on, by one to the store."""
        self._open.add(writer)
        passage = Passage(self, self._port, reader, writer)
        try:
            while await passage.take_one(self._key_id):
                pass
        except (Ended, OSError):
            pass
        finally:
            self._open.discard(writer)
            passage.cut()


class Passage:
    """One connection of a client, and the one to the store that belongs to it."""

    def __init__(
        self, proxy: Proxy, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._port = port
        self._reader, self._writer = reader, writer
        self._store: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def cut(self) -> None:
        """Resets what is still open."""
        cut(self._writer)
        if self._store is not None:
            cut(self._store[1])

    async def _end(self, *, resets: bool) -> bool:
        """Ends the client's connection, as the orders have it; returns that it does not go on."""
        if not resets:
            # A shutdown, not a close: what the client still sends would turn that into a reset.
            self._writer.write_eof()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reader.read(-1), _FAREWELL)
        return False

    async def take_one(self, key_id: str) -> bool:
        """Does what is to be done with the next request; returns whether the connection goes on."""
        head = await read_head(self._reader)
        kind, key = kind_of(head.first[0], head.first[1], copies="x-amz-copy-source" in head.headers)
        counted = self._proxy.traffic.setdefault(kind, [0, 0, 0])
        counted[0] += 1
        counted[1] += head.length
        if f"={key_id}/" not in head.headers.get("authorization", ""):
            return await self._answer(head, error(403, "Forbidden", "AccessDenied", "Access Denied"))
        fault = self._proxy.book.take(kind, key)
        fault = _PASS if fault is None else fault
        match fault.action:
            case Action.ANSWER:
                return await self._answer(head, error(fault.status, *STATUSES[fault.status]))
            case Action.ERROR_IN_200:
                return await self._answer(head, error(200, "OK", *STATUSES[500][1:]))
            case Action.CUT_BEFORE:
                return await self._end(resets=fault.resets)
            case Action.HANG:
                await asyncio.sleep(fault.seconds)
                return await self._end(resets=fault.resets)
            case Action.CUT_REQUEST:
                _, writer = await self._reach()
                writer.write(head.raw)
                async for piece in read_body(self._reader, head.length // 2):
                    writer.write(piece)
                    await writer.drain()
                cut(writer)
                return await self._end(resets=fault.resets)
            case _:
                return await self._pass(head, fault, counted)

    async def _answer(self, head: Head, answer: bytes) -> bool:
        """Reads the request to its end and gives an answer of this proxy's own."""
        async for _ in self._body(head):
            pass
        if head.first[0] == "HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        self._writer.write(answer)
        await self._writer.drain()
        return True

    async def _pass(self, head: Head, fault: Fault, counted: list[int]) -> bool:
        """Has the store answer the request, now or later, and passes the answer on, or a part of it."""
        late = fault.action is Action.DELAY and fault.seconds > 0
        if late:
            body = b"".join([piece async for piece in self._body(head)])
            await asyncio.sleep(fault.seconds)
        reader, writer = await self._reach()
        writer.write(head.raw)
        if late:
            writer.write(body)
        else:
            slowly = self._proxy.link(fault) if fault.action is Action.TRICKLE else None
            async for piece in self._body(head, link=slowly):
                writer.write(piece)
                await writer.drain()
        await writer.drain()
        while (answer := await read_head(reader)).first[1] == "100":
            pass  # the client has been told to go on
        if fault.action is Action.LOSE_ANSWER:
            return await self._end(resets=fault.resets)
        length = 0 if head.first[0] == "HEAD" or answer.first[1] in _BODILESS else answer.length
        cuts = fault.action is Action.CUT_RESPONSE
        self._writer.write(answer.raw if length or not cuts else answer.raw[: len(answer.raw) // 2])
        slowly = self._proxy.link(fault) if fault.action is Action.TRICKLE and not head.length else None
        async for piece in read_body(reader, length // 2 if cuts else length, link=slowly):
            counted[2] += len(piece)
            self._writer.write(piece)
            await self._writer.drain()
        await self._writer.drain()
        return await self._end(resets=fault.resets) if cuts else True

    async def _body(self, head: Head, *, link: Link | None = None) -> AsyncIterator[bytes]:
        """The request's body; a client that asks before it sends one is told to go on."""
        if head.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async for piece in read_body(self._reader, head.length, link=link):
            yield piece

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection to the store; a new one when the store has closed it."""
        if self._store is None or self._store[0].at_eof():
            self._store = await asyncio.open_connection("127.0.0.1", self._port, limit=PIECE)
        return self._store


class Control:
    """Does what the lines of JSON say that a test sends."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers each line of a connection."""
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._do(**json.loads(line))).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _do(self, name: str, argument: Any) -> object:
        match name:
            case "order":
                return self._proxy.book.order(Fault.from_mapping(argument))
            case "taken":
                return self._proxy.book.taken(argument)
            case "traffic":
                return self._proxy.traffic
            case "forget":
                self._proxy.traffic.clear()
            case "refuse":
                await self._proxy.refuse(argument)
            case "withdraw":
                self._proxy.book.withdraw()
                await self._proxy.accept()
            case _:
                raise ValueError(name)
        return None


async def run(listener: socket.socket, control: socket.socket, port: int, key_id: str) -> None:
    """Serves until the process ends."""
    proxy = Proxy(port, key_id)
    await proxy.listen(listener)
    async with await asyncio.start_server(Control(proxy).serve, sock=control) as serving:
        await serving.serve_forever()


def main() -> None:
    """Serves until the parent ends."""
    end_with_parent(grace=1)
    first, second = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    asyncio.run(run(first, second, int(sys.argv[3]), sys.argv[4]))


if __name__ == "__main__":
    main()
