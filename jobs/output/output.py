"""An output: its names, what it holds, and the one way a file gets into it.

    OUT/00003/  or  OUT/00003.tar, .parquet      a committed shard: it appears whole and never changes
    OUT/149/421/  or  OUT/149/421.tar, .parquet  the same in an output of many shards: `shard_names`
    OUT/job.json  failures.jsonl  preview.jpg  README.md
    OUT/records.parquet (or .jsonl)              the lines of all folders, in one order: `split_table`
    OUT/.imagemill/jobs/sunsets-1.json           the manifest of every submission
    OUT/.imagemill/jobs/sunsets-1.skipped.txt    the rows of prompt files that it left out, if it did
    OUT/.imagemill/jobs/sunsets-2.order          its lines in order, where the output held some before
    OUT/.imagemill/jobs/sunsets-2.lines.jsonl    its lines that share a picture with another one
    OUT/.imagemill/inputs/                       initial latents, by hash
    OUT/.imagemill/licences.json                 those of the models, as the hub tells them
    OUT/.imagemill/shards.json                   the form of its shards' names
    OUT/.imagemill/rows.json                     the slots of its pictures' forwards
    OUT/.imagemill/spool/00003/000002-5f3a9c1e/  finished images of a shard's second attempt
    OUT/.imagemill/spool/finish/000004-81b0d7aa/ what a finishing is writing
    OUT/.imagemill/quarantine/1/                 what a repair set aside, as it was
    OUT/.imagemill/lock                          held by the `imagemill run` that renders here, and its worker

The layout defines what a shard looks like (`jobs.output`). An output may hold shards of both layouts, because
a manifest's layout may change: everything here is read from what is there.

OUT is a folder or a place in a bucket (`store`). With a bucket, `lock` and the spool lie in a folder of this
machine's cache, and `.imagemill/uploads/` is what is being uploaded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Self

from jobs.errors import OutputError, OutputRefused
from jobs.location import CHECK_BUCKET, BucketPlace, NoLocation, check_obstore, names_bucket
from jobs.output.files import FolderShard
from jobs.output.image_ids import ImageIds
from jobs.output.kept_names import KeptNames, ShardEntry, shard_entries, thousands
from jobs.output.lines import HeldLines
from jobs.output.local_store import LocalStore
from jobs.output.metadata import Failure
from jobs.output.read_ahead import read_ahead
from jobs.output.shard_names import FLAT, ShardNames
from jobs.output.store import OutputStore, Unreachable
from jobs.output.stored_shard import LayoutName, StoredShard
from jobs.output.webdataset import TarShard
from jobs.plain_file import MAX_JSON
from jobs.strict_json import strict_json
from jobs.user_cache import cache_folder

INPUTS = ".imagemill/inputs"
"""Where the files are that requests name, in the output."""
JOBS = ".imagemill/jobs"
SPOOL = ".imagemill/spool"
PRIVATE = ".imagemill"
REPORT = "job.json"
CARD = "README.md"
PREVIEW = "preview.jpg"
"""The contact sheet."""
FAILURES = "failures.jsonl"
"""What failed and the output does not hold, of all shards."""


def caches_of_buckets() -> Path:
    """Where outputs in buckets have their folders on this machine."""
    return cache_folder("outputs")


@dataclass(frozen=True, slots=True, init=False)
class Output:
    """An output. Equal ones have the same files."""

    path: Path
    """Its folder, absolute; with a bucket, a folder of this machine's cache."""
    store: OutputStore
    _names: KeptNames = field(repr=False, compare=False)

    def __init__(self, path: Path, store: OutputStore | None = None, names: KeptNames | None = None) -> None:
        """The output in the folder `path`. `store`: its files, where they lie elsewhere; `names`: the form of
        its shards' names, where the output does not say it itself. Raises ValueError for a relative path."""
        if not path.is_absolute():
            raise ValueError(f"output {path}: must be absolute")
        own = LocalStore(path) if store is None else store
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "store", own)
        object.__setattr__(self, "_names", KeptNames(own) if names is None else names)

    @classmethod
    def at(cls, location: str) -> Self:
        """The output that a manifest or the ledger calls so. Raises OutputError for no place in a bucket."""
        if not names_bucket(location):
            return cls(Path(location))
        try:
            place = BucketPlace.parse(location)
            check_obstore()
        except NoLocation as error:
            raise OutputError(f"output {location}: {error}") from None
        from jobs.output.bucket_store import BucketStore  # an extra, and slow to import

        digest = hashlib.sha256(str(place).encode()).hexdigest()[:32]
        return cls(caches_of_buckets() / digest, BucketStore(place))

    @property
    def label(self) -> str:
        """What a manifest, the ledger and messages call it."""
        return self.store.label

    @property
    def in_bucket(self) -> bool:
        """Whether its files lie in a bucket."""
        return self.store.is_remote

    @property
    def private(self) -> Path:
        return self.path / PRIVATE

    @property
    def spool(self) -> Path:
        return self.path / SPOOL

    @property
    def inputs(self) -> Path:
        return self.path / INPUTS

    @property
    def jobs(self) -> Path:
        return self.private / "jobs"

    def spool_folder(self, shard: int, attempt: str) -> Path:
        return self.spool / FLAT.name(shard) / attempt

    @property
    def names(self) -> ShardNames:
        """What its shards are called. Raises OutputError where that cannot be told, Unreachable."""
        with self.reading():
            return self._names.now()

    def with_names(self, names: ShardNames) -> Output:
        """The same, where the output does not say itself what its shards are called."""
        return Output(self.path, self.store, KeptNames(self.store, names))

    def settle_names(self, names: ShardNames) -> None:
        """Keep the form of the names in the output, for a job that begins: `names`, where it has no shard.

        Before any worker can commit, and when none of an earlier job can any more. Raises OSError,
        OutputError.
        """
        self._names.settle(self.names if self.shards() else names)

    def stored(self, shard: int, layout: LayoutName | None = None) -> StoredShard:
        """The shard's place in this layout; without one, the place where it is committed (where it is not,
        `layout: files`)."""
        tar = TarShard(self.store, shard, self.names)
        if layout == "webdataset" or self.in_bucket:
            return tar
        folder = self._folder(shard)
        return folder if layout == "files" or folder.committed() or not tar.committed() else tar

    def shard_folder(self, shard: int) -> Path:
        """The folder of a shard in `layout: files`; the next two give files in it."""
        return self._folder(shard).path

    def metadata_file(self, shard: int) -> Path:
        return self._folder(shard).metadata_file

    def failures_file(self, shard: int) -> Path:
        return self._folder(shard).failures_file

    def prepare(self) -> None:
        """Create the folder and make sure that it can be written.

        Raises OutputError naming the output, what the system said, and the remedy.
        """
        try:
            for folder in (self.spool, self.inputs, self.jobs):
                folder.mkdir(parents=True, exist_ok=True)
            same_device = self.path.stat().st_dev == self.spool.stat().st_dev
        except OSError as error:
            if self.in_bucket:
                raise OutputError(
                    f"output {self.label}: {self.path} on this machine, where its spool is, cannot be "
                    f"written ({error.strerror}: {error.filename}): make the folder writable for this user, "
                    "free some space, or let XDG_CACHE_HOME name another one"
                ) from None
            raise OutputError(
                f"output {self.path} cannot be written ({error.strerror}: {error.filename}): "
                "make the folder writable for this user, free some space, or name another output"
            ) from None
        if not same_device:
            raise OutputError(
                f"output {self.path}: {self.spool} is on another file system, so shards could not appear in "
                "one step: remove the link or mount there"
            )
        self.store.prepare()

    def committed(self, shard: int) -> bool:
        """Whether the shard is there, in any layout."""
        if not self.in_bucket and self._folder(shard).committed():
            return True
        return TarShard(self.store, shard, self.names).committed()

    def shards(self) -> list[int]:
        """The numbers of the committed shards, ascending. Raises OutputError where a bucket is not there."""
        with self.reading():
            entries = shard_entries(self.store, self.names)
            return sorted({entry.shard for entry in entries if self._holds(entry)})

    def in_turn(self, shards: Iterable[int] | None = None) -> Iterator[tuple[int, StoredShard]]:
        """These shards, or all that are committed, one after the other, with their places.

        What a bucket's tars say is read ahead, for callers that ask each for its records or its failures.
        """
        numbers = self.shards() if shards is None else shards
        if not self.in_bucket:
            yield from ((shard, self.stored(shard)) for shard in numbers)
            return
        for tar in read_ahead(TarShard(self.store, shard, self.names) for shard in numbers):
            yield tar.number, tar

    def incomplete(self) -> list[int]:
        """The committed shards for which `StoredShard.complete` may have something to do; of a bucket two
        listings tell them."""
        if not self.in_bucket:
            return self.shards()
        with self.reading():
            return sorted(TarShard.without_parquet(self.store, self.names))

    def records(self, shard: int) -> Iterator[dict[str, Any]]:
        """The shard's metadata records, in the order of its images; none when every image failed.

        Raises OutputError naming file and line (or member) when a record cannot be read.
        """
        return self.stored(shard).records()

    def shard_failures(self, shard: int) -> list[Failure]:
        """What failed in the committed shard, in the order of its positions.

        Raises OutputError naming file and line when one cannot be read.
        """
        return self.stored(shard).failures()

    def pictures(self, shard: int, file_names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of those of these pictures that the shard holds, in its order."""
        return self.stored(shard).pictures(file_names)

    def held_image_ids(self) -> ImageIds:
        """The ids of the images that the output holds: named in a committed shard's metadata, and there.

        Raises OutputError naming file and line when a shard's metadata cannot be read.
        """
        records = (record for _, stored in self.in_turn() for record in stored.held_records())
        return ImageIds(record["image_id"] for record in records)

    def held_lines(
        self, below: int | None = None, on_record: Callable[[dict[str, Any]], None] = lambda record: None
    ) -> HeldLines:
        """The same images with their lines. Raises as `held_image_ids`.

        `below`: only those in shards with lower numbers. `on_record` gets each of their records.
        """
        held = HeldLines()
        shards = [shard for shard in self.shards() if below is None or shard < below]
        for _, stored in self.in_turn(shards):
            for record in stored.held_records():
                on_record(record)
                held.add(record)
        return held

    def failures(self) -> list[Failure]:
        """Every image that failed and that the output does not hold: once each, as it failed last."""
        last = {failure.image_id: failure for _, stored in self.in_turn() for failure in stored.failures()}
        held = self.held_image_ids() if last else ImageIds()
        left = [failure for image_id, failure in last.items() if image_id not in held]
        return sorted(left, key=lambda failure: (failure.shard, failure.position))

    def next_shard(self) -> int:
        """One more than the largest shard number in use, committed or in the spool; 0 when there is none."""
        with self.reading():
            entries = chain(
                (one for one in shard_entries(self.store, self.names) if one.ending or not self.in_bucket),
                shard_entries(LocalStore(self.path), FLAT, SPOOL),
            )
            # A file in a folder's place is none.
            used = (entry.shard for entry in entries if entry.ending or entry.is_folder)
            return max(used, default=-1) + 1

    def _holds(self, entry: ShardEntry) -> bool:
        """Whether the entry is a committed shard."""
        if entry.ending:
            return entry.ending == "tar" and entry.is_file
        return entry.is_folder and not self.in_bucket and self._folder(entry.shard).committed()

    def thousands(self) -> Iterator[Path]:
        """The folders of a thousand shards, where the output has such and is a folder."""
        folders = () if self.in_bucket else thousands(self.store, self.names)
        return (self.path / folder for folder in folders)

    def _folder(self, shard: int) -> FolderShard:
        return FolderShard(self.path, shard, self.names)

    def named(self, name: str) -> str:
        """A file of it, as messages call it."""
        return f"{self.label}/{name}"

    def unreadable(self, name: str, error: OSError) -> OutputError:
        """What is to be said of a file that the system, or the store, does not give: it may be sound."""
        if self.in_bucket:
            return OutputRefused(f"{self.named(name)} cannot be read ({error.strerror}): {CHECK_BUCKET}")
        return OutputError(
            f"{self.named(name)} cannot be read ({error.strerror}): make it a file that this user may read"
        )

    def read_json(self, name: str) -> Any:
        """The JSON value in a file. Raises OSError, and ValueError for any other text."""
        return strict_json(self.store.read(name, MAX_JSON))

    def close_attempts(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Keep every attempt that is under way from committing.

        For a job that begins: a worker of an earlier one, frozen until now, must not add shards to what this
        one writes. What it finished is still adopted from its spool. The ledger has forgotten those attempts
        before this is called. `wait`: see `OutputStore.close_stages`.
        """
        self.store.close_stages(wait)

    def cannot_use(self, error: OSError) -> OutputError:
        """What is said of an error that a worker met in the output, with the remedy."""
        # The second is where a file was to be renamed to.
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name)
        met = f"{error.strerror or error}{f': {names}' if names else ''}"
        if self.in_bucket:
            return OutputError(f"output {self.label} cannot be used ({met}): {CHECK_BUCKET}")
        if not self.path.is_dir():
            return OutputError(
                f"output {self.label}: this folder is not there any more: put it back, or cancel the job and "
                "submit its manifest again"
            )
        return OutputError(
            f"output {self.label} cannot be used ({met}): make it readable and writable for this user"
        )

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, what a bucket refuses becomes OutputError; no answer, and a folder's errors, pass."""
        try:
            yield
        except Unreachable:
            raise
        except OSError as error:
            if not self.in_bucket:
                raise
            raise OutputRefused(
                f"output {self.label} cannot be read ({error.strerror}): {CHECK_BUCKET}"
            ) from None
