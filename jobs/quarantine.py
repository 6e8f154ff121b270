"""What is wrong in committed shards, set aside: the one thing that ever takes something out of a shard.

    OUT/.imagemill/quarantine/1/problems.json           why
    OUT/.imagemill/quarantine/1/00003/metadata.jsonl    the shard's lines as they were
    OUT/.imagemill/quarantine/1/00003/000030001.png     a broken picture

What stays in a shard keeps its every byte, and a submission of the manifest renders the rest into new shards.
A crash at any point loses nothing and leaves what the next repair finds: lines are copied before they are
cut, and cut before the picture that they name is moved.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.errors import OutputError
from jobs.findings import Problem
from jobs.output import Output, fsync_folder, write_atomically

QUARANTINE = "quarantine"
"""In an output's private folder."""
REPAIRED = ".repaired.jsonl"
"""Of a shard, beside its failures: the places that a repair emptied, and why."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair did."""

    folder: Path
    """Where everything that was cut lies now."""
    problems: Sequence[Problem]
    """Those that were mended."""

    @property
    def shards(self) -> set[str]:
        """The names of the shards that were changed."""
        return {_shard_of(problem) for problem in self.problems}


def set_aside(output: Output, problems: Sequence[Problem]) -> Repair | None:
    """Move what is wrong with shards of `layout: files` into a new quarantine folder; None: nothing to mend.

    Whoever calls has seen to it that nobody else writes in the output. Raises OutputError when the system
    refuses a step; what was done until then stays done.
    """
    mended = [problem for problem in problems if problem.cut is not None]
    if not mended:
        return None
    try:
        folder = _new_folder(output)
        told = json.dumps([as_json(problem) for problem in mended], ensure_ascii=False, indent=2)
        write_atomically(folder / "problems.json", f"{told}\n".encode())
        for name in sorted({_shard_of(problem) for problem in mended}):
            _mend(output, int(name), folder, [one for one in mended if _shard_of(one) == name])
        fsync_folder(output.path)
    except OSError as error:
        raise OutputError(
            f"output {output.path} cannot be repaired ({error.strerror}: {error.filename}): make it writable "
            "for this user or free some space, and run the same command to go on"
        ) from None
    return Repair(folder, mended)


def as_json(problem: Problem) -> dict[str, Any]:
    """The problem as a mapping of JSON values."""
    return {name: value for name, value in asdict(problem).items() if name != "cut"}


def _new_folder(output: Output) -> Path:
    parent = output.private / QUARANTINE
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(folder.name) for folder in parent.iterdir() if folder.name.isdecimal()]
    folder = parent / str(max(taken, default=0) + 1)
    folder.mkdir()
    fsync_folder(parent)
    return folder


def _shard_of(problem: Problem) -> str:
    return problem.file.partition("/")[0]


def _mend(output: Output, shard: int, quarantine: Path, problems: Sequence[Problem]) -> None:
    """Take the problems' cuts out of one shard; all of it when nothing would be left."""
    folder, cuts = output.shard_folder(shard), [one.cut for one in problems if one.cut is not None]
    aside = quarantine / folder.name
    failures = _Lines(output.failures_file(shard), {n for cut in cuts for n in cut.failure_lines})
    metadata = _Lines(output.metadata_file(shard), {n for cut in cuts for n in cut.lines})
    if any(cut.whole for cut in cuts) or not (failures.kept or metadata.kept):
        folder.rename(aside)
        fsync_folder(quarantine)
        return
    aside.mkdir()
    for lines in (failures, metadata):
        if lines.kept != lines.before:
            write_atomically(aside / lines.file.name, lines.before)
    _note_places(folder / REPAIRED, quarantine, problems)
    for lines in (failures, metadata):
        if not lines.kept:
            lines.file.unlink(missing_ok=True)
        elif lines.kept != lines.before:
            write_atomically(lines.file, lines.kept)
    for name in sorted({name for cut in cuts for name in cut.names}):
        (folder / name).rename(aside / name)
    fsync_folder(aside)
    fsync_folder(folder)


class _Lines:
    """A file of lines as it is, and without some of them (from 1)."""

    def __init__(self, file: Path, dropped: Collection[int]) -> None:
        self.file = file
        self.before = file.read_bytes() if file.is_file() else b""
        # Not splitlines(), which ends lines at more than newlines.
        lines = enumerate(io.BytesIO(self.before), 1)
        self.kept = b"".join(line for number, line in lines if number not in dropped)


def _note_places(file: Path, quarantine: Path, problems: Sequence[Problem]) -> None:
    """Tell the next examination why these places in the shard are empty."""
    places = {position: one for one in problems if one.cut is not None for position in one.cut.positions}
    told = [
        {"position": position, "reason": f"{one.place}: {one.what}", "quarantine": quarantine.name}
        for position, one in sorted(places.items())
    ]
    if told:
        before = file.read_bytes() if file.is_file() else b""
        lines = "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in told)
        write_atomically(file, before + lines.encode())
