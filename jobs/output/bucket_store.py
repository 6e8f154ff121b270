"""An output's files in a bucket: Amazon S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

    sets/sunsets/00003.tar
    sets/sunsets/.imagemill/uploads/00003/000002-5f3a9c1e/new-8d0c41f2/00003.tar

The first is a committed shard; the second lies in its attempt's stage, for as long as it is uploaded.

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
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import obstore

from jobs.errors import OutputError
from jobs.failpoints import failpoint
from jobs.location import CHECK_BUCKET
from jobs.output import bucket_client
from jobs.output.bucket_client import VARIABLES, asked_once, connected
from jobs.output.bucket_copies import way_to_copy
from jobs.output.bucket_reading import BucketReading
from jobs.output.object_upload import put, upload
from jobs.output.store import PROBES, UPLOADS, Stage, StageClosed, Unreachable
from jobs.plain_file import open_plain

_COPIED: Final = 10 << 20
"""Bytes that a store copies in a second, at least."""
_MOST_COPIED: Final = 5 << 30
"""Bytes that S3 copies in one request."""
_NEW, _OVER, _CLOSING = "new", "over", "closing"
"""What a try's folder begins with: what it uploads is to get a name that must be free, or any; and what a
file begins with that says how many seconds the closing of the stages waits."""
_TO_A_FREE_NAME = re.compile(f"{UPLOADS}/.+?/{_NEW}-[0-9a-f]{{8}}/(.+)")
_CLOSED = re.compile(f"{UPLOADS}/{_CLOSING}-([0-9]{{1,4}})")


class BucketStore(BucketReading):
    """The files of the output at a place in a bucket; see `OutputStore`.

    Endpoint and credentials come from the usual variables (AWS_…, GOOGLE_…, AZURE_…), and are in no message.
    """

    __slots__ = ()
    is_remote = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketStore) and self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)

    def __repr__(self) -> str:
        return f"BucketStore({self.label!r})"

    def replace(self, name: str, data: bytes, stage: Stage | None = None) -> None:
        if stage is None:
            put(self, name, io.BytesIO(data))
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
            put(self, name, file)

    def create(self, name: str, data: bytes) -> None:
        """Write a new file. Raises FileExistsError where the name is taken: maybe by this very call."""
        key = self.key(name)
        asked_once(
            self.named(name),
            lambda: obstore.put(self.objects, key, data, mode="create", use_multipart=False),
        )

    def copy(self, name: str, to: str) -> None:
        self._copy(name, to, self.size(name))

    def _copy(self, name: str, to: str, size: int) -> None:
        store = connected(self.place, seconds=_seconds_to_copy(size))
        self.asked(to, lambda: obstore.copy(store, self.key(name), self.key(to)))

    def copy_if_absent(self, name: str, to: str, way: str, size: int = 0) -> None:
        """Copy a file of `size` bytes inside the store, in one of `bucket_copies.WAYS`.

        Raises FileExistsError where the name is taken, FileNotFoundError where there is no such file; either
        may come of an answer that was lost, and the copy be there.
        """
        store = connected(self.place, seconds=_seconds_to_copy(size), copying=way)
        source, target = self.key(name), self.key(to)
        asked_once(self.named(to), lambda: obstore.copy(store, source, target, overwrite=False))

    def move(self, name: str, to: str) -> None:
        self.copy(name, to)
        self.remove(name)

    def remove(self, name: str, stage: Stage | None = None) -> None:
        if stage is None:
            # Some stores say so of what is not there.
            with suppress(FileNotFoundError):
                self.asked(name, lambda: obstore.delete(self.objects, self.key(name)))
            return
        # A deletion has no condition, and would hit what a newer job has written there since.
        try:
            size = self.size(name)
        except FileNotFoundError:
            return
        if size:
            self.replace(name, b"", stage)

    def prepare(self) -> None:
        try:
            way_to_copy(self)
        except OSError as error:
            raise OutputError(
                f"output {self.label} cannot be written ({error.strerror}): {CHECK_BUCKET} "
                f"({VARIABLES[self.place.scheme]}), or name another output"
            ) from None

    def check_can_put_if_absent(self, folder: Path) -> None:
        way_to_copy(self)

    def close_stages(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Deletes what lies in them: what a worker finished lies in its own spool, too.

        Returns once a copy of it is done that the store had begun before.
        """
        uploads = dict(self.sizes_below(UPLOADS))
        seconds = self._seconds_to_settle(uploads)
        # Who is stopped while it waits leaves word to the next one.
        closing = f"{UPLOADS}/{_CLOSING}-{math.ceil(seconds)}"
        if seconds:
            self.replace(closing, b"")
        for one in uploads.keys() - {closing}:
            self.remove(one)
        if seconds:
            wait(seconds)
            self.remove(closing)

    def _seconds_to_settle(self, uploads: Mapping[str, int]) -> float:
        """How long a copy of one of the uploads may last that the store has begun."""
        longest = 0.0
        for name, size in sorted(uploads.items(), key=lambda one: -one[1]):
            if name.startswith(PROBES):
                continue
            told = _CLOSED.fullmatch(name)
            if told is not None:
                seconds = float(told[1])
            else:
                seconds = max(bucket_client.PATIENCE.settled, size / _COPIED)
            if seconds <= longest:
                continue
            target = _TO_A_FREE_NAME.fullmatch(name)
            # What has its name, or lost it to another attempt, is copied no more.
            if target is None or not self.exists(target[1]):
                longest = seconds
        return longest

    def _put_staged(self, name: str, file: BinaryIO, size: int, stage: Stage, *, overwrite: bool) -> None:
        """Give the name to what is uploaded into the stage first."""
        if self.place.scheme == "s3" and size > _MOST_COPIED:
            raise OSError(
                errno.EFBIG,
                f"has {size:,} bytes, and S3 copies {_MOST_COPIED:,} in a request: take a smaller shard_size",
                self.named(name),
            )
        place = Path(self.named(name))
        uploads: list[str] = []
        try:
            failpoint("before upload", place)
            upload(self, f"{UPLOADS}/{stage.name}/{_OVER if overwrite else _NEW}", name, file, uploads)
            failpoint("after upload", place)
            stage.confirm()
            failpoint("confirmed", place)
            self._check_whole(uploads[-1], size, name)
            self._give_name(uploads[-1], name, size, overwrite=overwrite)
        finally:
            # What stays is removed when a job begins: a store that is away is not waited for, within a lease.
            with suppress(OSError):
                once = connected(self.place, repeats=False)
                asked_once(place.name, lambda: obstore.delete(once, [self.key(one) for one in uploads]))

    def _check_whole(self, staged: str, size: int, name: str) -> None:
        """Raises StageClosed where an upload is gone, Unreachable where some of it is."""
        try:
            there = self.size(staged)
        except FileNotFoundError:
            raise _closed(self.named(name)) from None
        if there != size:
            raise Unreachable(errno.EIO, f"has {there:,} of the {size:,} bytes sent", self.named(staged))

    def _give_name(self, staged: str, name: str, size: int, *, overwrite: bool) -> None:
        """Copy an upload to its name. Raises StageClosed where it is gone."""
        way = "" if overwrite else way_to_copy(self)
        try:
            if overwrite:
                self._copy(staged, name, size)
            else:
                self._copy_to_free(staged, name, size, way)
        except FileNotFoundError:
            raise _closed(self.named(name)) from None

    def _copy_to_free(self, staged: str, name: str, size: int, way: str) -> None:
        """Raises FileExistsError where the name is taken, if need be by a copy whose answer was lost."""
        try:
            self.copy_if_absent(staged, name, way, size)
        except (FileExistsError, FileNotFoundError) as error:
            if self.exists(name):
                raise FileExistsError(errno.EEXIST, "is there already", self.named(name)) from None
            if isinstance(error, FileExistsError):  # another copy is under way
                raise Unreachable(errno.EBUSY, "is being written", self.named(name)) from None
            raise


def _closed(named: str) -> StageClosed:
    return StageClosed(errno.ENOENT, "its upload was taken away", named)


def _seconds_to_copy(size: int) -> int:
    """How long a copy may take: one of few figures, since each is a connection of its own."""
    seconds, wanted = bucket_client.PATIENCE.request, size // _COPIED
    while seconds < wanted:
        seconds *= 2
    return seconds
