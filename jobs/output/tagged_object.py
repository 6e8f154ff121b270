"""A small object in a bucket that is written on the condition that it is as it was last read.

On S3 the condition is `If-Match` with the object's tag, which it takes since 2024; Google's stores compare a
number that grows with each version, Azure's a tag. A store that ignores it would let two writers overwrite
each other, so that is tried once in each process.
Source: Amazon S3's User Guide, "Conditional requests"; obstore's documentation, "put".
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import obstore

from jobs.errors import OutputError
from jobs.location import BucketPlace
from jobs.output.bucket_client import asked, asked_once, connected
from jobs.output.store import PROBES, Unreachable

if TYPE_CHECKING:
    from obstore import UpdateVersion

_MOST: Final = 64 << 10
"""Bytes that are read of it."""


class Tag(NamedTuple):
    """What a store calls one state of an object."""

    e_tag: str | None
    version: str | None


class TaggedObject:
    """One object of an output, by its name there."""

    __slots__ = ("_key", "_place", "named")

    def __init__(self, place: BucketPlace, name: str) -> None:
        self._place = place
        self._key = "/".join(part for part in (place.prefix, name) if part)
        self.named = f"{place}/{name}"

    def read(self) -> tuple[bytes, Tag] | None:
        """Its first bytes, and its tag; None where it is not there. Raises OSError, Unreachable."""

        def get() -> tuple[bytes, Tag]:
            got = obstore.get(connected(self._place), self._key)
            tag = Tag(got.meta["e_tag"], got.meta["version"])
            return (b"" if got.meta["size"] > _MOST else got.bytes().to_bytes()), tag

        try:
            return asked(self.named, get)
        except FileNotFoundError:
            # A bucket that is not there is told by the first write.
            return None

    def put(self, data: bytes, tag: Tag | None) -> None:
        """Write it where it is still as the tag says; without one, where it is not there.

        Raises FileExistsError where it is not, maybe because of this very call; Unreachable; OSError.
        """
        mode = "create" if tag is None else _version(tag)
        # Not by obstore's own repetition, nor by ours: what was done already would be refused.
        store = connected(self._place, repeats=False)
        try:
            asked_once(
                self.named, lambda: obstore.put(store, self._key, data, mode=mode, use_multipart=False)
            )
        except FileNotFoundError:
            if tag is None:
                raise
            raise FileExistsError(errno.EEXIST, "is gone", self.named) from None

    def check(self) -> None:
        """Raises OutputError where its store does not keep the condition; Unreachable; OSError."""
        _check(_Bucket(self._place), os.getpid())

    def remove(self) -> None:
        """Take it away, if it is there and the store answers."""
        with suppress(OSError):
            asked_once(self.named, lambda: obstore.delete(connected(self._place), self._key))


class _Bucket:
    """A place of which any other in its bucket is equal: they keep the same conditions."""

    __slots__ = ("place",)

    def __init__(self, place: BucketPlace) -> None:
        self.place = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bucket) and self._bucket == other._bucket

    def __hash__(self) -> int:
        return hash(self._bucket)

    @property
    def _bucket(self) -> tuple[str, str]:
        return self.place.scheme, self.place.bucket


@lru_cache
def _check(bucket: _Bucket, _process: int) -> None:
    probe = TaggedObject(bucket.place, f"{PROBES}{secrets.token_hex(6)}")
    try:
        if not _keeps(probe):
            raise OutputError(
                f"{bucket.place.scheme}://{bucket.place.bucket}: its store does not write on the condition "
                "that an object is as it was (If-Match), without which jobs of two Redis servers could write "
                "to one output at a time: take another store, or a newer version of it"
            )
    finally:
        probe.remove()


def _keeps(probe: TaggedObject) -> bool:
    """Whether the second of two writes over one state of an object is refused."""
    with suppress(FileExistsError):  # its own, whose answer was lost
        probe.put(b"first", None)
    _, tag = _there(probe)
    if tag == Tag(None, None):
        return False
    try:
        probe.put(b"second", tag)
    except FileExistsError as error:  # nobody else writes it: the answer says nothing
        raise Unreachable(errno.EBUSY, f"refused a write ({error})", probe.named) from None
    with suppress(FileExistsError):
        probe.put(b"third", tag)
    return _there(probe)[0] == b"second"


def _there(probe: TaggedObject) -> tuple[bytes, Tag]:
    found = probe.read()
    if found is None:
        raise Unreachable(errno.ENOENT, "is gone right after it was written", probe.named)
    return found


def _version(tag: Tag) -> UpdateVersion | Literal["create"]:
    version: UpdateVersion = {"e_tag": tag.e_tag}
    if tag.version is not None:
        version["version"] = tag.version
    return version
