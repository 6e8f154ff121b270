"""The output folder: its names, what it holds, and the one way a file gets into it.

    OUT/00003/000030000.png … metadata.jsonl     a committed shard: it appears whole and never changes
    OUT/00003/.failures.jsonl                    what failed in it; hidden, so dataset readers pass it by
    OUT/00003/.repaired.jsonl                    which places a repair emptied
    OUT/job.json  failures.jsonl  preview.jpg  README.md
    OUT/.imagemill/jobs/sunsets-1.json           the manifest of every submission
    OUT/.imagemill/inputs/                       initial latents, by hash
    OUT/.imagemill/rows.json                     the rows its pictures are rendered with: `jobs.settled_rows`
    OUT/.imagemill/spool/00003/000002-5f3a9c1e/  finished images of a shard's second attempt
    OUT/.imagemill/quarantine/1/                 what a repair set aside, as it was
    OUT/.imagemill/lock                          held by the `imagemill run` that renders here, and its worker

A shard's failures lie inside its folder so that one rename commits pictures, metadata and failures
together: beside it, a late attempt could leave its own list next to another attempt's pictures.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import JobError, OutputError
from jobs.metadata import Failure

METADATA = "metadata.jsonl"
"""Of a shard, beside its pictures: what Hugging Face's imagefolder reads."""
SHARD_LIMIT = 10_000
"""Images in one shard at most: a key has four digits for the place in it."""

_SHARD_NAME = re.compile(r"\d{5,}")


def shard_name(shard: int) -> str:
    """`00003`: five digits, more from shard 100000 on."""
    return f"{shard:05d}"


def image_key(shard: int, position: int) -> str:
    """`000030012`: the shard's name and four digits for the place in it, from 0.

    Raises ValueError outside 0 .. SHARD_LIMIT - 1.
    """
    if not 0 <= position < SHARD_LIMIT:
        raise ValueError(f"position {position} in a shard: must be 0 .. {SHARD_LIMIT - 1}")
    return f"{shard_name(shard)}{position:04d}"


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable. A file system that cannot sync a folder is taken as it is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write the file whole and durable, or not at all: temporary name, fsync, rename, fsync of the folder.

    Replaces what is there. Raises OSError as the system gives it (ENOSPC: nothing is left behind).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_folder(path.parent)


def check_within(path: Path, root: Path) -> Path:
    """The path with its symbolic links resolved, which is `root` or below it.

    Raises OutputError where it is not. Neither needs to exist.
    """
    real, real_root = path.resolve(), root.resolve()
    if real != real_root and real_root not in real.parents:
        raise OutputError(
            f"output {path} (really {real}) lies outside IMAGEMILL_OUTPUT_ROOT = {real_root}: "
            "name a folder below it, or start the workers with another IMAGEMILL_OUTPUT_ROOT"
        )
    return real


@dataclass(frozen=True, slots=True)
class Output:
    """An output folder in `layout: files`. `path` is absolute."""

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
        return self.private / "inputs"

    @property
    def jobs(self) -> Path:
        return self.private / "jobs"

    def shard_folder(self, shard: int) -> Path:
        return self.path / shard_name(shard)

    def spool_folder(self, shard: int, attempt: str) -> Path:
        return self.spool / shard_name(shard) / attempt

    def metadata_file(self, shard: int) -> Path:
        return self.shard_folder(shard) / METADATA

    def failures_file(self, shard: int) -> Path:
        return self.shard_folder(shard) / ".failures.jsonl"

    def prepare(self) -> None:
        """Create the folder and make sure that it can be written.

        Raises OutputError naming the folder, what the system said, and the remedy.
        """
        try:
            for folder in (self.spool, self.inputs, self.jobs):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe.{secrets.token_hex(6)}"
            write_atomically(probe, b"")
            probe.unlink()
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
        for folder in (self.path, self.private, self.spool, self.inputs, self.jobs):
            check_within(folder, root)

    @contextlib.contextmanager
    def locked(self, patience: float = 15.0) -> Iterator[int]:
        """Keeps every other `imagemill run` out of the folder, which exists; yields the lock's descriptor.

        A process that inherits the descriptor holds the lock too, until it ends. Waits `patience` seconds for
        who holds it, then raises JobError with that process's id. A file system without locks locks nothing.
        """
        file = self.private / "lock"
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(
                f"{file}: cannot be opened ({error.strerror}): make it writable for this user"
            ) from None
        # Closed and never unlocked: unlocking would take the lock from who inherited it. The file stays: were
        # it removed, one process could lock the old one and another a new one.
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
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                    raise JobError(
                        f"output {self.path}: another `imagemill run` (pid {holder}) renders there, or its "
                        f"worker is still ending: follow it with `imagemill watch`, wait for it, or stop it "
                        f"(kill {holder}) and run the same command to go on"
                    ) from None
            except OSError as error:
                if error.errno in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}:
                    return
                raise
            time.sleep(0.1)

    def committed(self, shard: int) -> bool:
        """Whether the shard is there. One in which every image failed is a folder without pictures."""
        return self.metadata_file(shard).is_file() or self.failures_file(shard).is_file()

    def shards(self) -> list[int]:
        """The numbers of the committed shards, ascending."""
        return [shard for shard in _numbered(self.path) if self.committed(shard)]

    def rows(self, shard: int) -> Iterator[dict[str, Any]]:
        """The shard's metadata rows, in the order of its images; none when every image failed.

        Raises OutputError naming file and line when a row cannot be read.
        """
        file = self.metadata_file(shard)
        if not file.exists() and self.failures_file(shard).exists():
            return
        for place, row in _json_lines(file):
            if not isinstance(row.get("image_id"), str) or not isinstance(row.get("file_name"), str):
                raise _damaged(place, "a row without file_name and image_id")
            yield row

    def shard_failures(self, shard: int) -> list[Failure]:
        """What failed in the committed shard, in the order of its positions.

        Raises OutputError naming file and line when a line cannot be read.
        """
        file = self.failures_file(shard)
        return [_failure(place, row) for place, row in _json_lines(file)] if file.exists() else []

    def held_image_ids(self, below: int | None = None) -> set[str]:
        """The ids of the images that the output holds: named in a committed shard's metadata, and there.

        `below`: only in shards with lower numbers. Raises OutputError naming file and line when a shard's
        metadata cannot be read.
        """
        held = set()
        for shard in self.shards():
            if below is not None and shard >= below:
                break
            files = {file.name for file in self.shard_folder(shard).iterdir()}
            held |= {row["image_id"] for row in self.rows(shard) if row["file_name"] in files}
        return held

    def failures(self) -> list[Failure]:
        """Every image that failed and that the output does not hold: once each, as it failed last."""
        last = {
            failure.image_id: failure for shard in self.shards() for failure in self.shard_failures(shard)
        }
        held = self.held_image_ids() if last else set()
        left = [failure for image_id, failure in last.items() if image_id not in held]
        return sorted(left, key=lambda failure: (failure.shard, failure.position))

    def next_shard(self) -> int:
        """One more than the largest shard number in use, committed or in the spool; 0 when there is none."""
        return max([*_numbered(self.path), *_numbered(self.spool)], default=-1) + 1

    def next_job_number(self, name: str) -> int:
        """One more than the largest number of a job of this name submitted here; 1 when there is none.

        Raises OutputError when job.json is there and cannot be read.
        """
        job_ids = {file.stem for file in self.jobs.glob("*.json")} if self.jobs.is_dir() else set()
        report = self.path / "job.json"
        if report.exists():
            try:
                job_ids.add(str(json.loads(report.read_bytes())["job_id"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise _damaged(f"{report}:1", f"not a job's report ({error})") from None
        numbers = [int(m[1]) for i in job_ids if (m := re.fullmatch(re.escape(name) + r"-(\d+)", i))]
        return max(numbers, default=0) + 1

    def write_job_manifest(self, job_id: str, manifest: Mapping[str, Any]) -> None:
        """Keep the submission's manifest in the output, by the job's id."""
        text = json.dumps(manifest, ensure_ascii=False, indent=2)
        write_atomically(self.jobs / f"{job_id}.json", f"{text}\n".encode())


def _numbered(folder: Path) -> list[int]:
    """The shard numbers that name a folder here, ascending; a file of such a name is none."""
    try:
        names = [e.name for e in os.scandir(folder) if _SHARD_NAME.fullmatch(e.name) and e.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name == shard_name(int(name)))


def _json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`file:line` and the JSON object there, for each line."""
    try:
        with file.open("rb") as lines:
            if not stat.S_ISREG(os.fstat(lines.fileno()).st_mode):
                raise _damaged(f"{file}:1", "not a plain file")
            for number, line in enumerate(lines, 1):
                place = f"{file}:{number}"
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise _damaged(place, f"not a line of JSON ({error})") from None
                if not isinstance(row, dict):
                    raise _damaged(place, "not a JSON object")
                yield place, row
    except OSError as error:
        raise _damaged(f"{file}:1", str(error.strerror)) from None


def _failure(place: str, row: Mapping[str, Any]) -> Failure:
    try:
        return Failure.from_mapping(row)
    except (KeyError, TypeError) as error:
        raise _damaged(place, f"not a failure ({error})") from None


def _damaged(place: str, what: str) -> OutputError:
    return OutputError(
        f"{place}: {what}; imagemill writes shards whole, so something else changed it: "
        "restore the file, or move its folder out of the output to have the images rendered again"
    )
