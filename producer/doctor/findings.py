"""What an examination of an output finds: problems with their remedies, and what is sound."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

ProblemKind = Literal[
    "picture",
    "line",
    "stray",
    "doubled",
    "gap",
    "folder",
    "report",
    "unreadable",
    "missing",
    "tar",
    "table",
    "lost",
]
"""picture: missing, broken or another's; line: of metadata or failures; stray: named by no line; doubled: an
image_id twice; gap: a place in a shard with neither picture nor failure; folder: not a shard that imagemill
committed; report: job.json or a kept manifest; unreadable: the system refuses it; missing: asked for by a
manifest and not there; tar: cut off or changed between its members; table: a parquet that is missing, or says
something else than its tar; lost: a shard that was there and is gone."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a repair takes out of a shard for one problem."""

    names: tuple[str, ...] = ()
    """Files in the shard's folder, or in the tar, where the whole sample is removed."""
    lines: tuple[int, ...] = ()
    """Numbers from 1 of lines in metadata.jsonl, or of members in the tar."""
    failure_lines: tuple[int, ...] = ()
    """Numbers from 1 of lines in .failures.jsonl."""
    positions: tuple[int, ...] = ()
    """Places in the shard that are empty afterwards."""
    whole: bool = False
    """The whole shard is moved: its folder, or its tar and its parquet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in an output."""

    kind: ProblemKind
    file: str
    """Relative to the output, as `shown`."""
    line: int | None = None
    what: str
    remedy: str
    image_id: str | None = None
    cut: Cut | None = None
    """How a repair mends it; None when a person must. A cut is of the shard that `file` begins with."""

    @property
    def place(self) -> str:
        """`00000/metadata.jsonl:12`."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


class SoundImage(NamedTuple):
    """An image with nothing wrong: its line in the shard's metadata (of a tar: its member), and its file."""

    image_id: str
    line: int
    file_name: str
    key: int
    """The `line_key` of its record."""


@dataclass(slots=True)
class ShardFindings:
    """What one shard holds, in any layout."""

    shard: int
    place: str
    """What holds its pictures, relative to the output."""
    images: list[SoundImage] = field(default_factory=list)
    """The sound ones, in their order."""
    failed: list[str] = field(default_factory=list)
    """The image_ids of its failures."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Harmless, but worth saying."""
