"""The output folder: its names, what it holds, and the one way a file gets into it.

    OUT/00003/  or  OUT/00003.tar, .parquet      a committed shard: it appears whole and never changes
    OUT/job.json  failures.jsonl  preview.jpg  README.md
    OUT/records.parquet (or .jsonl)              the lines of all folders, in one order: `split_table`
    OUT/.imagemill/jobs/sunsets-1.json           the manifest of every submission
    OUT/.imagemill/jobs/sunsets-1.skipped.txt    the rows of prompt files that it left out, if it did
    OUT/.imagemill/jobs/sunsets-2.order          its lines in order, where the output held some before
    OUT/.imagemill/jobs/sunsets-2.lines.jsonl    its lines that share a picture with another one
    OUT/.imagemill/inputs/                       initial latents, by hash
    OUT/.imagemill/licences.json                 those of the models, as the hub tells them
    OUT/.imagemill/rows.json                     the slots of its pictures' forwards
    OUT/.imagemill/spool/00003/000002-5f3a9c1e/  finished images of a shard's second attempt
    OUT/.imagemill/spool/finish/000004-81b0d7aa/ what a finishing is writing
    OUT/.imagemill/quarantine/1/                 what a repair set aside, as it was
    OUT/.imagemill/lock                          held by the `imagemill run` that renders here, and its worker

The layout defines what a shard looks like (`jobs.output`). An output may hold shards of both layouts, because
a manifest's layout may change: everything here is read from what is on disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import JobError, OutputError
from jobs.lock import try_lock
from jobs.output.durable import write_atomically
from jobs.output.files import FolderShard
from jobs.output.image_ids import ImageIds
from jobs.output.lines import HeldLines
from jobs.output.metadata import Failure
from jobs.output.stored_shard import LayoutName, StoredShard, damaged, shard_name
from jobs.output.webdataset import TarShard
from jobs.plain_file import MAX_JSON, read_json

INPUTS = ".imagemill/inputs"
"""Where initial latents are, in the output's folder."""
_CLOSED = ".closed"
_LAYOUTS: Mapping[LayoutName, type[FolderShard] | type[TarShard]] = {
    "files": FolderShard,
    "webdataset": TarShard,
}


def check_within(path: Path, root: Path) -> Path:
    """The path with its symbolic links resolved, which is `root` or below it.

    Raises OutputError where it is not, or cannot be a path. Neither needs to exist.
    """
    try:
        real, real_root = path.resolve(), root.resolve()
        os.fsencode(real)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL, half of a surrogate pair
        raise OutputError(f"output {str(path)!r} cannot be a path ({error}): name another output") from None
    if real != real_root and real_root not in real.parents:
        raise OutputError(
            f"output {path} (really {real}) lies outside IMAGEMILL_OUTPUT_ROOT = {real_root}: "
            "name a folder below it, or start the workers with another IMAGEMILL_OUTPUT_ROOT"
        )
    return real


def open_plain(file: Path, flags: int) -> int:
    """A descriptor of a plain file, made where there is none. Raises OutputError, also for a link."""
    try:
        # Without O_NONBLOCK the opening of a pipe waits for a reader.
        descriptor = os.open(file, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file")
    except OSError as error:
        raise OutputError(
            f"{file}: cannot be opened ({error.strerror}): make it a file that this user may write"
        ) from None


@dataclass(frozen=True, slots=True)
class Output:
    """An output folder. `path` is absolute."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_absolute():
            raise ValueError(f"output {self.path}: must be absolute")

    @property
    def private(self) -> Path:
        return self.path / ".imagemill"

    @property
    def spool(self) -> Path:
        return self.private / "spool"

    @property
    def inputs(self) -> Path:
        return self.path / INPUTS

    @property
    def jobs(self) -> Path:
        return self.private / "jobs"

    def spool_folder(self, shard: int, attempt: str) -> Path:
        return self.spool / shard_name(shard) / attempt

    def stored(self, shard: int, layout: LayoutName | None = None) -> StoredShard:
        """The shard's place in this layout; without one, the place where it is committed (where it is not,
        `layout: files`)."""
        if layout is not None:
            return _LAYOUTS[layout](self.path, shard)
        places = [kind(self.path, shard) for kind in _LAYOUTS.values()]
        return next((place for place in places if place.committed()), places[0])

    def shard_folder(self, shard: int) -> Path:
        """The folder of a shard in `layout: files`; the next two give files in it."""
        return FolderShard(self.path, shard).path

    def metadata_file(self, shard: int) -> Path:
        return FolderShard(self.path, shard).metadata_file

    def failures_file(self, shard: int) -> Path:
        return FolderShard(self.path, shard).failures_file

    def prepare(self) -> None:
        """Create the folder and make sure that it can be written.

        Raises OutputError naming the folder, what the system said, and the remedy.
        """
        try:
            for folder in (self.spool, self.inputs, self.jobs):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
            same_device = self.path.stat().st_dev == self.spool.stat().st_dev
        except OSError as error:
            raise OutputError(
                f"output {self.path} cannot be written ({error.strerror}: {error.filename}): "
                "make the folder writable for this user, free some space, or name another output"
            ) from None
        if not same_device:
            raise OutputError(
                f"output {self.path}: {self.spool} is on another file system, so shards could not appear in "
                "one step: remove the link or mount there"
            )

    def check_within(self, root: Path) -> None:
        """Raises OutputError where the folder, symbolic links resolved, is neither `root` nor below it, or a
        link in it leads what imagemill keeps there out of `root`."""
        for folder in (self.path, self.private):
            check_within(folder, root)
        for folder in (self.private, self.spool):
            try:
                links = [entry for entry in _entries(folder) if entry.is_symlink()]
            except OSError as error:
                raise OutputError(
                    f"output {self.path} cannot be read ({error.strerror}: {error.filename}): make it "
                    "readable for this user, or name another output"
                ) from None
            for link in links:
                check_within(link, root)

    @contextlib.contextmanager
    def locked(self, patience: float = 15.0) -> Iterator[int]:
        """Keeps every other `imagemill run` out of the folder, which exists; yields the lock's descriptor.

        A process that inherits the descriptor holds the lock too, until it ends. Waits up to `patience`
        seconds for the process that holds it, then raises JobError with that process's id. On a file system
        without locks, nothing is locked.
        """
        descriptor = open_plain(self.private / "lock", os.O_RDWR)
        # The descriptor is closed and never unlocked: unlocking would take the lock from a process that has
        # it too. The file stays: if it were removed, one process could lock the old one, another a new one.
        try:
            self._lock(descriptor, patience)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                if try_lock(descriptor):
                    return
            except OSError as error:
                if error.errno in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}:
                    return
                raise
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise JobError(
                    f"output {self.path}: another `imagemill run` (pid {holder}) is already rendering there, "
                    f"or its worker is still ending: follow it with `imagemill watch`, wait for it, or stop "
                    f"it (kill {holder}) and run the same command to go on"
                )
            time.sleep(0.1)

    def committed(self, shard: int) -> bool:
        """Whether the shard is there, in any layout."""
        return any(kind(self.path, shard).committed() for kind in _LAYOUTS.values())

    def shards(self) -> list[int]:
        """The numbers of the committed shards, ascending."""
        return [shard for shard in sorted(self._numbers()) if self.committed(shard)]

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

    def held_image_ids(
        self, below: int | None = None, on_record: Callable[[dict[str, Any]], None] | None = None
    ) -> ImageIds:
        """The ids of the images that the output holds: named in a committed shard's metadata, and there.

        `below`: only in shards with lower numbers. `on_record` gets each of their records. Raises OutputError
        naming file and line when a shard's metadata cannot be read.
        """
        shards = [shard for shard in self.shards() if below is None or shard < below]
        records = (record for shard in shards for record in self.stored(shard).held_records())
        if on_record is None:
            return ImageIds(record["image_id"] for record in records)

        def ids() -> Iterator[str]:
            for record in records:
                on_record(record)
                yield record["image_id"]

        return ImageIds(ids())

    def held_lines(
        self, below: int | None = None, on_record: Callable[[dict[str, Any]], None] = lambda record: None
    ) -> HeldLines:
        """The same images with their lines. `below`, `on_record` and errors as in `held_image_ids`."""
        held = HeldLines()
        for shard in self.shards():
            for record in self.stored(shard).held_records() if below is None or shard < below else ():
                on_record(record)
                held.add(record)
        return held

    def failures(self) -> list[Failure]:
        """Every image that failed and that the output does not hold: once each, as it failed last."""
        last = {
            failure.image_id: failure for shard in self.shards() for failure in self.shard_failures(shard)
        }
        held = self.held_image_ids() if last else ImageIds()
        left = [failure for image_id, failure in last.items() if image_id not in held]
        return sorted(left, key=lambda failure: (failure.shard, failure.position))

    def next_shard(self) -> int:
        """One more than the largest shard number in use, committed or in the spool; 0 when there is none."""
        return max(self._numbers() | set(FolderShard.numbers(self.spool)), default=-1) + 1

    def _numbers(self) -> set[int]:
        """The shard numbers in use in the output itself, committed or not."""
        return {number for kind in _LAYOUTS.values() for number in kind.numbers(self.path)}

    def next_job_number(self, name: str) -> int:
        """One more than the largest number of a job of this name submitted here; 1 when there is none.

        Raises OutputError when job.json is there and cannot be read.
        """
        job_ids = {file.stem for file in self.jobs.glob("*.json")} if self.jobs.is_dir() else set()
        report = self.path / "job.json"
        if report.exists():
            try:
                job_ids.add(str(read_json(report, MAX_JSON)["job_id"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise damaged(f"{report}:1", f"not a job's report ({error})") from None
        numbers = [int(m[1]) for i in job_ids if (m := re.fullmatch(re.escape(name) + r"-([0-9]{1,18})", i))]
        return max(numbers, default=0) + 1

    def close_attempts(self) -> None:
        """Rename the spool folder of every attempt, so that none of them can commit any more.

        For a job that begins: a worker of an earlier one, frozen until now, must not add shards to what this
        one writes. What they finished is still adopted from there.
        """
        for shard in _entries(self.spool):
            if shard.is_symlink():
                continue
            for attempt in _entries(shard):
                if attempt.suffix != _CLOSED:
                    with contextlib.suppress(FileNotFoundError):
                        attempt.rename(attempt.with_name(attempt.name + _CLOSED))

    def write_job_manifest(self, job_id: str, manifest: Mapping[str, Any]) -> None:
        """Keep the submission's manifest in the output, by the job's id, which is as Redis gave it.

        Raises OutputError for an id that would lead elsewhere.
        """
        text = json.dumps(manifest, ensure_ascii=False, indent=2)
        write_atomically(self.job_manifest(job_id), f"{text}\n".encode())

    def job_manifest(self, job_id: str) -> Path:
        """Where a submission's manifest is kept. Raises OutputError for an id that would lead elsewhere."""
        if not re.fullmatch(r"[\w.-]+-\d+", job_id, re.ASCII):
            raise OutputError(
                f"{self.jobs}: Redis calls the job {job_id!r}, which is no job's id: find out who writes to "
                "Redis, and submit to another"
            )
        return self.jobs / f"{job_id}.json"

    def skipped_rows(self, job_id: str) -> Path:
        """Where the rows of prompt files that a submission left out are listed. Raises as `job_manifest`."""
        return self.job_manifest(job_id).with_suffix(".skipped.txt")

    def line_order(self, job_id: str) -> Path:
        """Where `line_order` keeps the order of a submission's lines. Raises as `job_manifest`."""
        return self.job_manifest(job_id).with_suffix(".order")

    def equal_lines(self, job_id: str) -> Path:
        """Where `equal_lines` keeps the lines of a submission that share a picture. Raises as
        `job_manifest`."""
        return self.job_manifest(job_id).with_suffix(".lines.jsonl")


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return list(folder.iterdir())
    return []
