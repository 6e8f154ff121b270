"""An object read in parts: each a request of its own, so that a slow link only makes it late."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import obstore

from jobs.location import BucketPlace
from jobs.output.bucket_client import asked, connected
from jobs.output.object_access import PART
from jobs.output.store import Unreachable
from jobs.plain_file import TooLarge

if TYPE_CHECKING:
    from obstore import ObjectMeta

CHANGED: Final = "changed while it was read"


class ObjectParts:
    """One object as it was when its first part was read."""

    __slots__ = ("_first", "_key", "_named", "_place")

    def __init__(self, place: BucketPlace, key: str, named: str) -> None:
        self._place, self._key, self._named = place, key, named
        self._first: ObjectMeta | None = None

    @property
    def first(self) -> ObjectMeta:
        """What the store said of it at the first part. Raises ValueError before one was read."""
        if self._first is None:
            raise ValueError("no part was read yet")
        return self._first

    def part(self, start: int, size: int, most: int | None = None) -> tuple[int, bytes]:
        """The object's size, and up to `size` bytes of it from `start`, in one request.

        Raises TooLarge for an object of more than `most` bytes, Unreachable also where it has become another
        one, or another OSError.
        """

        def read() -> tuple[ObjectMeta, bytes]:
            options: obstore.GetOptions = {"range": (start, start + size)}
            got = obstore.get(connected(self._place), self._key, options=options)
            found = got.meta
            if most is not None and found["size"] > most:
                raise TooLarge(errno.EFBIG, f"larger than {most:,} bytes", self._named)
            if self._is_other(found):
                return found, b""
            data, wanted = got.bytes().to_bytes(), min(size, found["size"] - start)
            if len(data) != wanted:
                raise Unreachable(errno.EIO, f"gave {len(data):,} of {wanted:,} bytes", self._named)
            return found, data

        try:
            found, data = asked(self._named, read)
        except OSError as error:
            if isinstance(error, Unreachable | FileNotFoundError | PermissionError | TooLarge):
                raise
            # An empty object has no part, not even one of no bytes; nor has a short one a far part.
            head = asked(self._named, lambda: obstore.head(connected(self._place), self._key))
            if head["size"] > start:
                raise
            found, data = head, b""
        if self._is_other(found):
            raise Unreachable(errno.ESTALE, CHANGED, self._named)
        self._first = found
        return found["size"], data

    def pieces(self, most: int | None = None) -> Iterator[bytes]:
        """All bytes, in pieces; raises as `part`."""
        size, data = self.part(0, PART, most)
        yield data
        for start in range(PART, size, PART):
            yield self.part(start, PART)[1]

    def _is_other(self, found: ObjectMeta) -> bool:
        return self._first is not None and version(found) != version(self._first)


def version(found: ObjectMeta) -> tuple[str, int]:
    """What differs between an object and another one that took its name."""
    tag = found["e_tag"]
    return (found["last_modified"].isoformat() if tag is None else tag), found["size"]
