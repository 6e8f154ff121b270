"""What every layout can do with a shard."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from jobs.columns import MAX_DEPTH, deeper_than
from jobs.errors import OutputError
from jobs.output.metadata import Failure, setting_trouble
from jobs.output.store import Stage

LayoutName = Literal["files", "webdataset"]

FAILURES = ".failures.jsonl"
"""The file next to a shard's pictures that lists what failed. It is hidden, so dataset readers skip it."""
REPAIRED = ".repaired.jsonl"
"""The same for the places that a repair emptied, and why."""

_IMAGE_ID = re.compile(r"[0-9a-f]{16}")
_FILE_NAME = re.compile(r"[\w-]+\.[a-z]+", re.ASCII)


def entries_of_a_shard(layout: LayoutName) -> int:
    """How many entries a shard takes of its folder: its own, or a tar and a parquet."""
    return 1 if layout == "files" else 2


class Span(NamedTuple):
    """Where a record lies in the file that holds a shard's metadata, in bytes."""

    start: int
    size: int


class StoredShard(Protocol):
    """One shard's place in an output, in one layout. Every method that reads raises OutputError, naming file
    and place, if something else changed the shard."""

    @property
    def name(self) -> str:
        """What is in the output once the shard is committed."""

    @property
    def label(self) -> str:
        """The same, as messages call it."""

    def key(self, position: int) -> str:
        """What the files of an image are called, without their ending: `000030012`. `position`: its place in
        the shard, from 0 to SHARD_LIMIT - 1."""

    def committed(self) -> bool:
        """Whether the shard is there."""

    def size(self) -> int:
        """Its bytes, of all its files."""

    def records(self) -> Iterator[dict[str, Any]]:
        """The metadata records, in the order of the images; none when every image failed."""

    def located(self) -> Iterator[tuple[Span, dict[str, Any]]]:
        """The same, each with where it lies."""

    def record_at(self, span: Span) -> dict[str, Any]:
        """The record that lies there."""

    def failures(self) -> list[Failure]:
        """What failed, in the order of its positions."""

    def held_records(self) -> Iterator[dict[str, Any]]:
        """The metadata records of those images whose picture is there."""

    def pictures(self, file_names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The picture files of these names that are there, in the shard's order."""

    def check_writable(self, folder: Path) -> None:
        """Raises OutputError where this machine or the file system of `folder`, which can be written, lacks
        what a commit takes."""

    def commit(
        self, images: Path, records: Sequence[Mapping[str, Any]], failures: Sequence[Failure], stage: Stage
    ) -> None:
        """Make the shard appear whole in one step; the pictures lie in the spool's folder `images`.

        What else must be written is next to them, in the folder of `stage`. Raises FileExistsError, having
        changed nothing in the output, when the shard's place is taken, and OSError as the store gives it:
        then the same call may be made again.
        """

    def complete(self) -> None:
        """Make what follows from a committed shard and is not there: a crash may have come before it."""


def sound_record(place: str, record: object) -> dict[str, Any]:
    """The record. Raises OutputError when it is not one of metadata."""
    if not isinstance(record, dict):
        raise damaged(place, "not a JSON object")
    if not isinstance(record.get("image_id"), str) or not isinstance(record.get("file_name"), str):
        raise damaged(place, "a record without file_name and image_id")
    if not _IMAGE_ID.fullmatch(record["image_id"]):
        raise damaged(place, "a record whose image_id is no 16 hex digits")
    # The file is opened, so its name must not lead out of the shard.
    if not _FILE_NAME.fullmatch(record["file_name"]):
        raise damaged(place, "a record whose file_name names no picture")
    if deeper_than(MAX_DEPTH + 1, record):
        raise damaged(place, f"a record nested deeper than {MAX_DEPTH}")
    trouble = setting_trouble(record)
    if trouble is not None:
        raise damaged(place, f"a record whose {trouble}")
    return record


def sound_failure(place: str, record: object) -> Failure:
    """The failure. Raises OutputError when `record` is none."""
    try:
        if not isinstance(record, dict):
            raise TypeError("not a JSON object")
        if deeper_than(MAX_DEPTH + 2, record):
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        failure = Failure.from_mapping(record)
        failure.entry.request.identity().encode()  # half a surrogate pair has no image_id
        return failure
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(place, f"not a failure ({error})") from None


def damaged(place: str, what: str) -> OutputError:
    """The error that something else changed a committed shard."""
    return OutputError(
        f"{place}: {what}; imagemill writes shards whole, so something else changed it: "
        "restore the file, or move its shard out of the output to have the images rendered again"
    )
