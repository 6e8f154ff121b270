"""What is in an output's bucket: reading and listing it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import obstore

from jobs.location import BucketPlace
from jobs.output.bucket_client import asked, connected
from jobs.output.local_store import DescriptorAccess
from jobs.output.object_access import AHEAD, ObjectAccess, fetch
from jobs.output.object_parts import ObjectParts
from jobs.output.store import Found, RandomAccess
from jobs.plain_file import MAX_OF_OUTPUT, check_line

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

Result = TypeVar("Result")


class BucketReading:
    """The files at a place in a bucket, to be read; see `OutputStore`."""

    __slots__ = ("label", "place")

    def __init__(self, place: BucketPlace) -> None:
        self.place, self.label = place, str(place)

    def read(self, name: str, most: int = MAX_OF_OUTPUT) -> bytes:
        return b"".join(self._parts(name).pieces(most))

    def lines(self, name: str) -> Iterator[bytes]:
        rest = b""
        for piece in self._parts(name).pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line + b"\n" for line in lines)
            check_line(rest, self.named(name))
        if rest:
            yield rest

    @contextmanager
    def opened(self, name: str, *, whole: bool = False) -> Iterator[RandomAccess]:
        part_of = self._parts(name).part
        opened = ObjectAccess(part_of)
        if not whole or opened.size <= AHEAD:
            yield opened
            return
        with tempfile.TemporaryFile(prefix="imagemill-") as file:
            fetch(part_of, opened.size, file)
            yield DescriptorAccess(file.fileno())

    def _parts(self, name: str) -> ObjectParts:
        return ObjectParts(self.place, self.key(name), self.named(name))

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def is_taken(self, name: str) -> bool:
        return self.exists(name)

    def size(self, name: str) -> int:
        return self.head(name)["size"]

    def modified(self, name: str) -> float:
        return self.head(name)["last_modified"].timestamp()

    def head(self, name: str) -> ObjectMeta:
        """What the store says of a file. Raises FileNotFoundError."""
        return self.asked(name, lambda: obstore.head(self.objects, self.key(name)))

    def list(self, folder: str = "") -> Iterator[Found]:
        prefix = self.key(folder) or None
        found = self.asked(folder, lambda: obstore.list_with_delimiter(self.objects, prefix))
        for one in found["common_prefixes"]:
            yield Found(one.rpartition("/")[2], True, False)
        for entry in found["objects"]:
            yield Found(entry["path"].rpartition("/")[2], False, True, entry["size"])

    def files_below(self, folder: str) -> Iterator[str]:
        for name, _ in self.sizes_below(folder):
            yield name

    def sizes_below(self, folder: str) -> Iterator[tuple[str, int]]:
        """The files at any depth of a folder and their sizes, a page at a time; after an answer that was
        lost, from there on."""
        prefix, last = self.key(folder) or None, ""
        pages: Iterator[Sequence[ObjectMeta]] | None = None

        def page() -> Sequence[ObjectMeta] | None:
            nonlocal pages
            if pages is None:
                pages = iter(obstore.list(self.objects, prefix, offset=last or None))
            try:
                return next(pages, None)
            except BaseException:
                pages = None
                raise

        own = len(self.place.prefix) + 1 if self.place.prefix else 0
        while (found := self.asked(folder, page)) is not None:
            for entry in found:
                last = entry["path"]
                yield last[own:], entry["size"]

    # Asking.

    @property
    def objects(self) -> ObjectStore:
        """The connection."""
        return connected(self.place)

    def asked(self, name: str, ask: Callable[[], Result]) -> Result:
        """What the store answers about a file; see `bucket_client.asked`."""
        return asked(self.named(name), ask)

    def key(self, name: str) -> str:
        """What a file is called in the bucket."""
        return "/".join(part for part in (self.place.prefix, name) if part)

    def named(self, name: str) -> str:
        """A file, as messages call it."""
        return f"{self.label}/{name}" if name else self.label
