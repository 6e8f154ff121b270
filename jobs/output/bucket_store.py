"""An output's files in a bucket: Amazon S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

    sets/sunsets/00003.tar                                             a committed shard
    sets/sunsets/.imagemill/uploads/00003/000002-5f3a9c1e/00003.tar    a stage, for as long as it is uploaded

Objects appear whole. Uploading in parts is retried part by part, and has no condition; so a shard is uploaded
into its stage, its lease is confirmed, and a copy inside the store gives it its name: the store refuses that
where the name is taken, and cannot do it where the stage was cleared. An answer that is lost on its way is
found by what is there then. On S3 that copy is one request, which it takes since 2025 on that condition; a
store that does not is asked for a copy in parts, which it completes on the condition: there a process that
stops between the two is held back by the number of its shard alone.
Sources: obstore's documentation ("put", "copy"); Amazon S3's User Guide, "Conditional requests".
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

import obstore

from jobs.errors import OutputError
from jobs.failpoints import failpoint
from jobs.location import BucketPlace
from jobs.output.bucket_client import REQUEST_SECONDS, VARIABLES, asked, asked_once, connected
from jobs.output.local_store import DescriptorAccess
from jobs.output.store import UPLOADS, Found, RandomAccess, Stage, StageClosed, Unreachable
from jobs.plain_file import MAX_OF_OUTPUT, TooLarge, open_plain

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Result = TypeVar("Result")
_PART: Final = 8 << 20
_PARTS_AT_ONCE: Final = 4
"""Bytes of a part of an upload; an uplink that moves so many within a request's time is fast enough."""
_AHEAD: Final = 256 << 10
_BLOCK: Final = 1 << 20
"""Bytes that are read ahead in an object: at first, where a shard has its records, and later."""
_FETCHED: Final = 4 << 20
"""Bytes of a part of a file that is read whole."""
_COPIED: Final = 10 << 20
"""Bytes that a store copies in a second, at least."""
_WAYS_TO_COPY: Final = ("header:if-none-match:*", "multipart")
"""How S3, and what speaks like it, copies to a name that must be free; the first that works is taken."""


class BucketStore:
    """The files of the output at a place in a bucket; see `OutputStore`.

    Endpoint and credentials come from the usual variables (AWS_…, GOOGLE_…, AZURE_…), and are in no message.
    """

    __slots__ = ("label", "place")
    far = True

    def __init__(self, place: BucketPlace) -> None:
        self.place, self.label = place, str(place)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketStore) and self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)

    def __repr__(self) -> str:
        return f"BucketStore({self.label!r})"

    # Reading.

    def read(self, name: str, most: int = MAX_OF_OUTPUT) -> bytes:
        def read() -> bytes:
            found = obstore.get(self._store, self._key(name))
            if found.meta["size"] > most:
                raise TooLarge(errno.EFBIG, f"larger than {most:,} bytes", self._named(name))
            return found.bytes().to_bytes()

        return self._asked(name, read)

    def lines(self, name: str) -> Iterator[bytes]:
        rest = b""
        stream = self._asked(name, lambda: obstore.get(self._store, self._key(name)).stream())
        # A body that is cut is asked for again from there.
        while (chunk := asked_once(self._named(name), lambda: next(stream, None))) is not None:
            *lines, rest = (rest + bytes(chunk)).split(b"\n")
            yield from (line + b"\n" for line in lines)
        if rest:
            yield rest

    @contextmanager
    def opened(self, name: str, *, whole: bool = False) -> Iterator[RandomAccess]:
        opened = _ObjectAccess(self, name)
        if not whole or opened.size <= _AHEAD:
            yield opened
            return
        with tempfile.TemporaryFile(prefix="imagemill-") as file:
            self._fetch(name, opened.size, file)
            yield DescriptorAccess(file.fileno())

    def _fetch(self, name: str, size: int, file: BinaryIO) -> None:
        """Copy a file to this machine, in parts, so that a slow link only makes each of them late."""

        def fetch(start: int) -> None:
            _, data = self.part_of(name, start, _FETCHED)
            file_at = start
            while data:
                written = os.pwrite(file.fileno(), data, file_at)
                data, file_at = data[written:], file_at + written

        with ThreadPoolExecutor(_PARTS_AT_ONCE, "fetch") as pool:
            for _ in pool.map(fetch, range(0, size, _FETCHED)):
                pass

    def part_of(self, name: str, start: int, size: int) -> tuple[int, bytes]:
        """The size of a file, and up to `size` bytes of it from `start`, in one request."""

        def read() -> tuple[int, bytes]:
            found = obstore.get(self._store, self._key(name), options={"range": (start, start + size)})
            return found.meta["size"], found.bytes().to_bytes()

        try:
            return self._asked(name, read)
        except OSError:
            if start == 0 and self.size(name) == 0:  # which has no range
                return 0, b""
            raise

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def is_taken(self, name: str) -> bool:
        return self.exists(name)

    def size(self, name: str) -> int:
        return self._asked(name, lambda: obstore.head(self._store, self._key(name)))["size"]

    def modified(self, name: str) -> float:
        found = self._asked(name, lambda: obstore.head(self._store, self._key(name)))
        return found["last_modified"].timestamp()

    def list(self, folder: str = "") -> Iterator[Found]:
        prefix = self._key(folder) or None
        found = self._asked(folder, lambda: obstore.list_with_delimiter(self._store, prefix))
        for one in found["common_prefixes"]:
            yield Found(one.rpartition("/")[2], True, False)
        for entry in found["objects"]:
            yield Found(entry["path"].rpartition("/")[2], False, True)

    def files_below(self, folder: str) -> Iterator[str]:
        begin = len(self.place.prefix) + 1 if self.place.prefix else 0
        prefix = self._key(folder) or None
        for entry in self._asked(folder, lambda: obstore.list(self._store, prefix).collect()):
            yield entry["path"][begin:]

    # Writing.

    def replace(self, name: str, data: bytes, stage: Stage | None = None) -> None:
        if stage is None:
            self._put(name, io.BytesIO(data), len(data))
        else:
            self._put_staged(name, io.BytesIO(data), len(data), stage, overwrite=True)

    def put_if_absent(self, name: str, file: Path, stage: Stage | None = None) -> None:
        with open_plain(file) as opened:
            if stage is None:
                self.create(name, opened.read())
            else:
                size = os.fstat(opened.fileno()).st_size
                self._put_staged(name, opened, size, stage, overwrite=False)

    @contextmanager
    def written(self, name: str) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile(prefix="imagemill-") as file:
            yield file
            size = file.seek(0, os.SEEK_END)
            self._put(name, file, size)

    def create(self, name: str, data: bytes) -> None:
        """Write a new file. Raises FileExistsError where the name is taken: maybe by this very call."""
        key = self._key(name)
        asked_once(
            self._named(name),
            lambda: obstore.put(self._store, key, data, mode="create", use_multipart=False),
        )

    def copy(self, name: str, to: str) -> None:
        store = connected(self.place, seconds=self._seconds_to_copy(name))
        self._asked(to, lambda: obstore.copy(store, self._key(name), self._key(to)))

    def copy_if_absent(self, name: str, to: str, way: str) -> None:
        """Copy a file inside the store, in one of `_WAYS_TO_COPY`.

        Raises FileExistsError where the name is taken, FileNotFoundError where there is no such file; either
        may come of an answer that was lost, and the copy be there.
        """
        store = connected(self.place, seconds=self._seconds_to_copy(name), copying=way)
        source, target = self._key(name), self._key(to)
        asked_once(self._named(to), lambda: obstore.copy(store, source, target, overwrite=False))

    def move(self, name: str, to: str) -> None:
        self.copy(name, to)
        self.remove(name)

    def remove(self, name: str, stage: Stage | None = None) -> None:
        if stage is not None:
            stage.confirm()
        # Some stores say so of what is not there.
        with suppress(FileNotFoundError):
            self._asked(name, lambda: obstore.delete(self._store, self._key(name)))

    def prepare(self) -> None:
        probe = f".imagemill/probe-{secrets.token_hex(6)}"
        try:
            self.replace(probe, b"")
            self.remove(probe)
        except OSError as error:
            raise OutputError(
                f"output {self.label} cannot be written ({error.strerror}): check the bucket's name, its "
                f"endpoint and the credentials ({VARIABLES[self.place.scheme]}), or name another output"
            ) from None

    def check_exact(self, folder: Path) -> None:
        _way_to_copy(self, os.getpid())

    def close_stages(self) -> None:
        """Deletes what lies in them: what a worker finished lies in its own spool, too."""
        for name in [*self.files_below(UPLOADS)]:
            self.remove(name)

    def _put_staged(self, name: str, file: BinaryIO, size: int, stage: Stage, *, overwrite: bool) -> None:
        """Give the name to what is uploaded into the stage first."""
        staged, place = f"{UPLOADS}/{stage.name}/{Path(name).name}", Path(self._named(name))
        failpoint("before upload", place)
        self._put(staged, file, size)
        failpoint("after upload", place)
        try:
            stage.confirm()
            failpoint("confirmed", place)
            if overwrite:
                self.copy(staged, name)
            else:
                self._copy_to_free(staged, name)
        except FileNotFoundError:
            raise StageClosed(errno.ENOENT, "its upload was taken away", self._named(name)) from None
        finally:
            # What stays is removed when a job begins.
            with suppress(OSError):
                self.remove(staged)

    def _copy_to_free(self, staged: str, name: str) -> None:
        """Raises FileExistsError where the name is taken, if need be by a copy whose answer was lost."""
        try:
            self.copy_if_absent(staged, name, _way_to_copy(self, os.getpid()))
        except (FileExistsError, FileNotFoundError) as error:
            if self.exists(name):
                raise FileExistsError(errno.EEXIST, "is there already", self._named(name)) from None
            if isinstance(error, FileExistsError):  # another copy is under way
                raise Unreachable(errno.EBUSY, "is being written", self._named(name)) from None
            raise

    def _put(self, name: str, file: BinaryIO, size: int) -> None:
        key, named = self._key(name), self._named(name)
        large = size > _PART

        def put() -> None:
            file.seek(0)
            # What is small is sent as it is, in one request.
            obstore.put(
                self._store,
                key,
                file if large else file.read(),
                use_multipart=large,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )

        try:
            asked(named, put)
        except FileNotFoundError:
            # So an upload in parts ends whose last answer was lost: it is tidied up, though it is there.
            if not large or self.size(name) != size:
                raise

    # Asking.

    @property
    def _store(self) -> ObjectStore:
        return connected(self.place)

    def _asked(self, name: str, ask: Callable[[], Result]) -> Result:
        return asked(self._named(name), ask)

    def _seconds_to_copy(self, name: str) -> int:
        """How long a copy may take: one of few figures, since each is a connection of its own."""
        seconds, wanted = REQUEST_SECONDS, self.size(name) // _COPIED
        while seconds < wanted:
            seconds *= 2
        return seconds

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.place.prefix, name) if part)

    def _named(self, name: str) -> str:
        return f"{self.label}/{name}" if name else self.label


class _ObjectAccess:
    """An object that is read in blocks, of which the first and the last are kept."""

    __slots__ = ("_block", "_first", "_name", "_start", "_store", "size")

    def __init__(self, store: BucketStore, name: str) -> None:
        self._store, self._name, self._start = store, name, 0
        self.size, self._first = store.part_of(name, 0, _AHEAD)
        self._block = self._first

    def read_at(self, start: int, size: int) -> bytes:
        stop = min(start + size, self.size)
        if start >= stop:
            return b""
        if stop <= len(self._first):
            return self._first[start:stop]
        if start < self._start or stop > self._start + len(self._block):
            _, self._block = self._store.part_of(self._name, start, max(stop - start, _BLOCK))
            self._start = start
        return self._block[start - self._start : stop - self._start]


@lru_cache
def _way_to_copy(store: BucketStore, _process: int) -> str:
    """How the store copies to a free name and to no other: tried once in each process.

    Raises OutputError where it does not, Unreachable.
    """
    chosen = os.environ.get("AWS_COPY_IF_NOT_EXISTS")
    ways = ("",) if store.place.scheme != "s3" else _WAYS_TO_COPY if chosen is None else (chosen,)
    source, *targets = (f".imagemill/probe-{secrets.token_hex(6)}" for _ in range(1 + len(ways)))
    said = "it overwrites what it was asked not to"
    try:
        store.replace(source, b"1")
        for way, target in zip(ways, targets, strict=True):
            give = partial(store.copy_if_absent, source, target, way)
            try:
                give()
                give()
            except FileExistsError:
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
