"""How a store of objects copies to a name that must be free, which no standard says."""

from __future__ import annotations

import errno
import os
import secrets
import threading
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from jobs.errors import OutputError
from jobs.location import BucketPlace
from jobs.output.bucket_client import ENDPOINTS
from jobs.output.store import PROBES, Unreachable

WAYS: Final = (
    "header:if-none-match:*",
    "header:cf-copy-destination-if-none-match:*",  # Cloudflare R2
    "multipart",
)
"""Of S3, and what speaks like it; the first that works is taken."""


class Copying(Protocol):
    """What is tried of a store. Equal ones copy alike."""

    label: str
    place: BucketPlace

    def read(self, name: str) -> bytes: ...

    def replace(self, name: str, data: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def copy_if_absent(self, name: str, to: str, way: str) -> None: ...


class _Server(NamedTuple):
    """What copies alike, whatever the output in it."""

    scheme: str
    bucket: str
    endpoint: tuple[str | None, ...]


class Proven:
    """What this process has tried, each once: how stores copy, and in which places they take files."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget what was tried."""
        self._trying = threading.Lock()
        self._ways: dict[_Server, str] = {}
        self._written: set[BucketPlace] = set()

    def way(self, store: Copying) -> str:
        """See `way_to_copy`."""
        server = _Server(store.place.scheme, store.place.bucket, tuple(map(os.environ.get, ENDPOINTS)))
        with self._trying:
            if server not in self._ways:
                self._ways[server] = _tried(store)
            elif store.place not in self._written:  # rights go by the place in a bucket
                _try_to_write(store)
            self._written.add(store.place)
            return self._ways[server]


_proven: Final = Proven()
# A lock that another thread of the parent holds would never be free.
os.register_at_fork(after_in_child=_proven.forget)


def way_to_copy(store: Copying) -> str:
    """How the store copies to a free name and to no other: tried once in each process, and that it takes
    files once in each place.

    Raises OutputError where it does not, Unreachable, FileNotFoundError where the bucket is not there,
    PermissionError where the store refuses to write.
    """
    return _proven.way(store)


def _try_to_write(store: Copying) -> None:
    probe = _probe()
    store.replace(probe, b"")
    store.remove(probe)


def _tried(store: Copying) -> str:
    chosen = os.environ.get("AWS_COPY_IF_NOT_EXISTS")
    ways = ("",) if store.place.scheme != "s3" else WAYS if chosen is None else (chosen,)
    source, *targets = (_probe() for _ in range(1 + len(ways)))
    said = "it overwrites what it was asked not to"
    made = [source]
    try:
        for way, target in zip(ways, targets, strict=True):
            store.replace(source, b"first")  # its errors are not those of a copy
            made.append(target)
            try:
                if _keeps(store, source, target, way):
                    return way
            except Unreachable:
                raise
            except FileNotFoundError:  # a job that began has cleared it away
                raise Unreachable(errno.ENOENT, "is gone right after it was written", source) from None
            except OSError as error:
                said = str(error.strerror)
    finally:
        for name in made:
            with suppress(OSError):
                store.remove(name)
    raise OutputError(
        f"{store.label}: its store does not copy on the condition that the name is free ({said}), without "
        "which a shard could be lost: take another store, or a newer version of it"
    )


def _probe() -> str:
    return f"{PROBES}{secrets.token_hex(6)}"


def _keeps(store: Copying, source: str, target: str, way: str) -> bool:
    """Whether a second copy to a name is refused, and the first stays there. The source holds `first`."""
    with suppress(FileExistsError):  # its own, whose answer was lost
        store.copy_if_absent(source, target, way)
    store.replace(source, b"second")
    try:
        store.copy_if_absent(source, target, way)
    except FileExistsError:
        return store.read(target) == b"first"
    return False
