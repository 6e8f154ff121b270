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
import time
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

import obstore

from jobs.errors import OutputError
from jobs.failpoints import failpoint
from jobs.location import CHECK_BUCKET, BucketPlace
from jobs.output import bucket_client
from jobs.output.bucket_client import VARIABLES, asked, asked_once, connected
from jobs.output.bucket_copies import way_to_copy
from jobs.output.local_store import DescriptorAccess
from jobs.output.object_access import AHEAD, ObjectAccess, fetch
from jobs.output.object_parts import ObjectParts
from jobs.output.store import UPLOADS, Found, RandomAccess, Stage, StageClosed, Unreachable
from jobs.output.upload_pace import SLOW, Pace, paced
from jobs.plain_file import MAX_OF_OUTPUT, check_line, open_plain

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

Result = TypeVar("Result")
_COPIED: Final = 10 << 20
"""Bytes that a store copies in a second, at least."""
_MOST_COPIED: Final = 5 << 30
"""Bytes that S3 copies in one request."""


class BucketStore:
    """The files of the output at a place in a bucket; see `OutputStore`.

    Endpoint and credentials come from the usual variables (AWS_…, GOOGLE_…, AZURE_…), and are in no message.
    """

    __slots__ = ("label", "place")
    is_remote = True

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
        return b"".join(self._parts(name).pieces(most))

    def lines(self, name: str) -> Iterator[bytes]:
        rest = b""
        for piece in self._parts(name).pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line + b"\n" for line in lines)
            check_line(rest, self._named(name))
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
        return ObjectParts(self.place, self._key(name), self._named(name))

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def is_taken(self, name: str) -> bool:
        return self.exists(name)

    def size(self, name: str) -> int:
        return self._head(name)["size"]

    def modified(self, name: str) -> float:
        return self._head(name)["last_modified"].timestamp()

    def _head(self, name: str) -> ObjectMeta:
        return self._asked(name, lambda: obstore.head(self._store, self._key(name)))

    def list(self, folder: str = "") -> Iterator[Found]:
        prefix = self._key(folder) or None
        found = self._asked(folder, lambda: obstore.list_with_delimiter(self._store, prefix))
        for one in found["common_prefixes"]:
            yield Found(one.rpartition("/")[2], True, False)
        for entry in found["objects"]:
            yield Found(entry["path"].rpartition("/")[2], False, True, entry["size"])

    def files_below(self, folder: str) -> Iterator[str]:
        for entry in self._entries_below(folder):
            yield self._name(entry)

    def _entries_below(self, folder: str) -> Iterator[ObjectMeta]:
        """What is below a folder, a page at a time; after an answer that was lost, from there on."""
        prefix, last = self._key(folder) or None, ""
        pages: Iterator[Sequence[ObjectMeta]] | None = None

        def page() -> Sequence[ObjectMeta] | None:
            nonlocal pages
            if pages is None:
                pages = iter(obstore.list(self._store, prefix, offset=last or None))
            try:
                return next(pages, None)
            except BaseException:
                pages = None
                raise

        while (found := self._asked(folder, page)) is not None:
            for entry in found:
                last = entry["path"]
                yield entry

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
        self._copy(name, to, self.size(name))

    def _copy(self, name: str, to: str, size: int) -> None:
        store = connected(self.place, seconds=_seconds_to_copy(size))
        self._asked(to, lambda: obstore.copy(store, self._key(name), self._key(to)))

    def copy_if_absent(self, name: str, to: str, way: str, size: int = 0) -> None:
        """Copy a file of `size` bytes inside the store, in one of `bucket_copies.WAYS`.

        Raises FileExistsError where the name is taken, FileNotFoundError where there is no such file; either
        may come of an answer that was lost, and the copy be there.
        """
        store = connected(self.place, seconds=_seconds_to_copy(size), copying=way)
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
                f"output {self.label} cannot be written ({error.strerror}): {CHECK_BUCKET} "
                f"({VARIABLES[self.place.scheme]}), or name another output"
            ) from None

    def check_can_put_if_absent(self, folder: Path) -> None:
        way_to_copy(self, os.getpid())

    def close_stages(self) -> None:
        """Deletes what lies in them: what a worker finished lies in its own spool, too.

        Returns once a copy of it is done that the store had begun before.
        """
        uploads = [*self._entries_below(UPLOADS)]
        for upload in uploads:
            self.remove(self._name(upload))
        if uploads:
            largest = max(upload["size"] for upload in uploads)
            time.sleep(max(bucket_client.PATIENCE.settled, largest / _COPIED))

    def _put_staged(self, name: str, file: BinaryIO, size: int, stage: Stage, *, overwrite: bool) -> None:
        """Give the name to what is uploaded into the stage first."""
        if self.place.scheme == "s3" and size > _MOST_COPIED:
            raise OSError(
                errno.EFBIG,
                f"has {size:,} bytes, and S3 copies {_MOST_COPIED:,} in a request: take a smaller shard_size",
                self._named(name),
            )
        place = Path(self._named(name))
        uploads: list[str] = []
        try:
            failpoint("before upload", place)
            self._upload(f"{UPLOADS}/{stage.name}", Path(name).name, file, size, uploads)
            failpoint("after upload", place)
            stage.confirm()
            failpoint("confirmed", place)
            self._check_whole(uploads[-1], size, name)
            self._give_name(uploads[-1], name, size, overwrite=overwrite)
        finally:
            # What stays is removed when a job begins: a store that is away is not waited for, within a lease.
            with suppress(OSError):
                once = connected(self.place, repeats=False)
                asked_once(place.name, lambda: obstore.delete(once, [self._key(one) for one in uploads]))

    def _upload(self, folder: str, base: str, file: BinaryIO, size: int, tries: MutableSequence[str]) -> None:
        """Upload a file; `tries` gets the name of every try, and the last one is it.

        Each has a name of its own, for a request that was given up may arrive late: under a name that was
        copied since, or taken away because another job has begun, it would be there again.
        """

        def put(pace: Pace) -> None:
            tries.append(f"{folder}/{secrets.token_hex(4)}/{base}")
            large = size > pace.part
            self._send(connected(self.place, repeats=large), tries[-1], file, pace)

        paced(self._named(folder), size, put)

    def _check_whole(self, staged: str, size: int, name: str) -> None:
        """Raises StageClosed where an upload is gone, Unreachable where some of it is."""
        try:
            there = self.size(staged)
        except FileNotFoundError:
            raise _closed(self._named(name)) from None
        if there != size:
            raise Unreachable(errno.EIO, f"has {there:,} of the {size:,} bytes sent", self._named(staged))

    def _give_name(self, staged: str, name: str, size: int, *, overwrite: bool) -> None:
        """Copy an upload to its name. Raises StageClosed where it is gone."""
        way = "" if overwrite else way_to_copy(self, os.getpid())
        try:
            if overwrite:
                self._copy(staged, name, size)
            else:
                self._copy_to_free(staged, name, size, way)
        except FileNotFoundError:
            raise _closed(self._named(name)) from None

    def _copy_to_free(self, staged: str, name: str, size: int, way: str) -> None:
        """Raises FileExistsError where the name is taken, if need be by a copy whose answer was lost."""
        try:
            self.copy_if_absent(staged, name, way, size)
        except (FileExistsError, FileNotFoundError) as error:
            if self.exists(name):
                raise FileExistsError(errno.EEXIST, "is there already", self._named(name)) from None
            if isinstance(error, FileExistsError):  # another copy is under way
                raise Unreachable(errno.EBUSY, "is being written", self._named(name)) from None
            raise

    def _put(self, name: str, file: BinaryIO, size: int) -> None:
        before: ObjectMeta | None = None
        if size > SLOW.part:
            with suppress(FileNotFoundError):
                before = self._head(name)
        paced(self._named(name), size, lambda pace: self._send(self._store, name, file, pace, before))

    def _send(
        self, store: ObjectStore, name: str, file: BinaryIO, pace: Pace, before: ObjectMeta | None = None
    ) -> None:
        """One try to write a whole file, over the one that was there before."""
        size = file.seek(0, os.SEEK_END)
        large = size > pace.part
        file.seek(0)
        try:
            # What is small is sent as it is, in one request.
            obstore.put(
                store,
                self._key(name),
                file if large else file.read(),
                use_multipart=large,
                chunk_size=pace.part,
                max_concurrency=pace.at_once,
            )
        except FileNotFoundError:
            # So an upload in parts ends whose last answer was lost: it is tidied up, though it is there.
            if not large:
                raise
            there = self._head(name)
            if there == before:
                raise Unreachable(
                    errno.EIO, "was not replaced: its upload is gone", self._named(name)
                ) from None
            if there["size"] != size:
                raise

    # Asking.

    @property
    def _store(self) -> ObjectStore:
        return connected(self.place)

    def _asked(self, name: str, ask: Callable[[], Result]) -> Result:
        return asked(self._named(name), ask)

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.place.prefix, name) if part)

    def _name(self, entry: ObjectMeta) -> str:
        return entry["path"][len(self.place.prefix) + 1 if self.place.prefix else 0 :]

    def _named(self, name: str) -> str:
        return f"{self.label}/{name}" if name else self.label


def _closed(named: str) -> StageClosed:
    return StageClosed(errno.ENOENT, "its upload was taken away", named)


def _seconds_to_copy(size: int) -> int:
    """How long a copy may take: one of few figures, since each is a connection of its own."""
    seconds, wanted = bucket_client.PATIENCE.request, size // _COPIED
    while seconds < wanted:
        seconds *= 2
    return seconds
