"""How a store of objects copies to a name that must be free, which no standard says."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from functools import lru_cache
from typing import Final, Protocol

from jobs.errors import OutputError
from jobs.location import BucketPlace
from jobs.output.store import Unreachable

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

    def __hash__(self) -> int: ...


@lru_cache
def way_to_copy(store: Copying, _process: int) -> str:
    """How the store copies to a free name and to no other: tried once in each process.

    Raises OutputError where it does not, Unreachable, FileNotFoundError where the bucket is not there,
    PermissionError where the store refuses to write.
    """
    chosen = os.environ.get("AWS_COPY_IF_NOT_EXISTS")
    ways = ("",) if store.place.scheme != "s3" else WAYS if chosen is None else (chosen,)
    source, *targets = (f".imagemill/probe-{secrets.token_hex(6)}" for _ in range(1 + len(ways)))
    said = "it overwrites what it was asked not to"
    try:
        store.replace(source, b"first")  # its errors are not those of a copy
        for way, target in zip(ways, targets, strict=True):
            try:
                if _keeps(store, source, target, way):
                    return way
            except Unreachable:
                raise
            except OSError as error:
                said = str(error.strerror)
    finally:
        for name in (source, *targets):
            with suppress(OSError):
                store.remove(name)
    raise OutputError(
        f"{store.label}: its store does not copy on the condition that the name is free ({said}), without "
        "which a shard could be lost: take another store, or a newer version of it"
    )


def _keeps(store: Copying, source: str, target: str, way: str) -> bool:
    """Whether a second copy to a name is refused, and the first stays there."""
    store.replace(source, b"first")
    with suppress(FileExistsError):  # its own, whose answer was lost
        store.copy_if_absent(source, target, way)
    store.replace(source, b"second")
    try:
        store.copy_if_absent(source, target, way)
    except FileExistsError:
        return store.read(target) == b"first"
    return False
