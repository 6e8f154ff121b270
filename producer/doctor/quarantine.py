"""What is wrong in committed shards is set aside here: nothing else ever takes anything out of a shard.

    OUT/.imagemill/quarantine/1/problems.json           why
    OUT/.imagemill/quarantine/1/00003/metadata.jsonl    the shard's lines as they were
    OUT/.imagemill/quarantine/1/00003/000030001.png     a broken picture
    OUT/.imagemill/quarantine/1/00004.tar               a tar as it was, and its parquet

(of an output of many shards: 149/421/ and 149/421.tar there, as in the output)

What stays in a shard keeps every byte, and a submission of the manifest renders the rest into new shards.
A crash at any point loses nothing and leaves what the next repair finds: lines are copied before they are
cut, and cut before the picture that they name is moved. A tar is written again without what is wrong in it.
One step puts it in the place of the old one, once the old one has a second name in quarantine. Its parquet
follows.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from jobs.errors import OutputError
from jobs.output.durable import fsync_folder, write_atomically
from jobs.output.output import Output
from jobs.output.shard_names import Part
from jobs.output.shard_table import check_parquet
from jobs.output.stored_shard import FAILURES, REPAIRED
from jobs.output.tar_file import DamagedTar, Member, TarReader, TarWriter
from jobs.output.tar_records import RECORDS, records_bytes
from jobs.output.webdataset import TarShard
from jobs.plain_file import read_plain
from producer.doctor.findings import Cut, Problem

QUARANTINE = ".imagemill/quarantine"
"""In an output."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair did."""

    folder: str
    """Where in the output everything that was cut lies now."""
    problems: Sequence[Problem]
    """The problems that were mended."""
    shards: Collection[int]
    """The shards that were changed."""


def set_aside(output: Output, problems: Sequence[Problem]) -> Repair | None:
    """Move what is wrong with shards into a new quarantine folder; None: nothing to mend.

    The caller makes sure that nothing else writes in the output. Raises OutputError when the system
    refuses a step (what was done before stays done), and, having done nothing, when a tar is to be mended
    and its parquet cannot be written here.
    """
    mended = [problem for problem in problems if problem.cut is not None]
    if not mended:
        return None
    parts = [_part_of(output, problem) for problem in mended]
    if any(part.ending for part in parts):
        check_parquet()
    try:
        folder = _new_folder(output)
        report = json.dumps([as_json(problem) for problem in mended], ensure_ascii=False, indent=2)
        with output.store.written(f"{folder}/problems.json") as file:
            file.write(f"{report}\n".encode())
        wrong: dict[tuple[int, bool], list[Problem]] = {}
        for part, problem in zip(parts, mended, strict=True):
            wrong.setdefault((part.shard, part.ending != ""), []).append(problem)
        for (shard, in_tar), of_it in sorted(wrong.items(), key=itemgetter(0)):
            (_mend_tar if in_tar else _mend)(output, shard, folder, of_it)
        if not output.in_bucket:
            fsync_folder(output.path)
    except OSError as error:
        raise OutputError(
            f"output {output.label} cannot be repaired ({error.strerror}: {error.filename}): make it "
            "writable for this user or free some space, and run the same command to go on"
        ) from None
    return Repair(folder, mended, {part.shard for part in parts})


def as_json(problem: Problem) -> dict[str, Any]:
    """The problem as a mapping of JSON values."""
    return {name: value for name, value in asdict(problem).items() if name != "cut"}


def _new_folder(output: Output) -> str:
    taken = [int(one.name) for one in output.store.list(QUARANTINE) if one.name.isdecimal()]
    return f"{QUARANTINE}/{max(taken, default=0) + 1}"


def _part_of(output: Output, problem: Problem) -> Part:
    """The shard that a problem's cut is of; with an ending where it is a tar."""
    part = output.names.part(problem.file)
    if part is None:
        raise ValueError(f"{problem.file}: is to be cut, and is no shard's")
    return part


def _mend(output: Output, shard: int, aside_in: str, problems: Sequence[Problem]) -> None:
    """Take the problems' cuts out of one shard's folder; all of it when nothing would be left."""
    folder, cuts = output.shard_folder(shard), [one.cut for one in problems if one.cut is not None]
    quarantine = output.path / aside_in
    aside = quarantine / output.names.name(shard)
    aside.parent.mkdir(exist_ok=True)
    failures = _Lines(output.failures_file(shard), {n for cut in cuts for n in cut.failure_lines})
    metadata = _Lines(output.metadata_file(shard), {n for cut in cuts for n in cut.lines})
    if any(cut.whole for cut in cuts) or not (failures.kept or metadata.kept):
        folder.rename(aside)
        fsync_folder(aside.parent)
        return
    aside.mkdir()
    for lines in (failures, metadata):
        if lines.kept != lines.before:
            write_atomically(aside / lines.file.name, lines.before)
    if emptied := _notes_on_places(aside_in, problems):
        noted = _Lines(folder / REPAIRED, ())
        write_atomically(noted.file, noted.before + emptied.encode())
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
        self.before = read_plain(file) if file.is_file() else b""
        # Not splitlines(), which ends lines at more than newlines.
        lines = enumerate(io.BytesIO(self.before), 1)
        self.kept = b"".join(line for number, line in lines if number not in dropped)


def _mend_tar(output: Output, shard: int, quarantine: str, problems: Sequence[Problem]) -> None:
    """Write one shard's tar again without the problems' cuts, and its parquet from it; move both away
    when nothing would be left."""
    stored, store = TarShard(output.store, shard, output.names), output.store
    cuts = [one.cut for one in problems if one.cut is not None]
    if any(cut.whole for cut in cuts) or not (kept := _sound_members(stored, cuts)):
        # The parquet first: it follows from the tar, and a next repair finds what a crash in between leaves.
        for name in (stored.parquet, stored.name):
            with contextlib.suppress(FileNotFoundError):
                store.move(name, f"{quarantine}/{name}")
        return
    if any(one.file != stored.parquet for one in problems):
        store.copy(stored.name, f"{quarantine}/{stored.name}")
        _write_sound(stored, kept, cuts, _notes_on_places(quarantine, problems))
    with contextlib.suppress(FileNotFoundError):
        store.move(stored.parquet, f"{quarantine}/{stored.parquet}")
    stored.complete()


def _sound_members(stored: TarShard, cuts: Sequence[Cut]) -> list[Member]:
    """The tar's samples and failures that the cuts leave."""
    keys = {name.partition(".")[0] for cut in cuts for name in cut.names}
    numbers = {number for cut in cuts for number in cut.lines}
    kept = []
    with stored.store.opened(stored.name) as opened, contextlib.suppress(DamagedTar):
        tar = TarReader(opened)
        for number, member in enumerate(tar.members(), 1):
            key = member.name.partition(".")[0]
            if number in numbers or (key and key in keys) or member.name == RECORDS:
                continue
            if member.name != FAILURES or _left_of(tar.read(member), cuts):
                kept.append(member)
    return kept if any(member.name != REPAIRED for member in kept) else []


def _write_sound(stored: TarShard, kept: Sequence[Member], cuts: Sequence[Cut], emptied: str) -> None:
    """Put these members of the tar in its place, with the failures that the cuts leave and the lines
    on the places that they emptied."""
    store = stored.store
    with store.opened(stored.name) as opened, store.written(stored.name) as sink:
        tar, writer = TarReader(opened), TarWriter(sink)
        hidden = {member.name: tar.read(member) for member in kept if member.name.startswith(".")}
        samples = [*_ordered(member for member in kept if member.name not in hidden)]
        if FAILURES in hidden:
            writer.add(FAILURES, _left_of(hidden[FAILURES], cuts))
        if repaired := hidden.get(REPAIRED, b"") + emptied.encode():
            writer.add(REPAIRED, repaired)
        if store.is_remote:
            writer.add(RECORDS, records_bytes(_samples(tar, samples)))
        for member in samples:
            writer.add(member.name, tar.read(member))
        writer.close()


def _ordered(members: Iterable[Member]) -> Iterator[Member]:
    """The same with each sample's picture, text and record in this order, which the member of records is
    read by."""
    places = {"txt": 1, "json": 2}
    for _, of_key in groupby(members, lambda member: member.name.partition(".")[0]):
        yield from sorted(of_key, key=lambda member: places.get(member.name.partition(".")[2], 0))


def _samples(tar: TarReader, members: Sequence[Member]) -> Iterator[tuple[int, bytes, bytes]]:
    """The bytes of each sample's picture, its text and its record as JSON."""
    for _, of_key in groupby(members, lambda member: member.name.partition(".")[0]):
        picture, text, record = of_key
        yield picture.size, tar.read(text), tar.read(record)


def _left_of(failures: bytes, cuts: Sequence[Cut]) -> bytes:
    dropped = {number for cut in cuts for number in cut.failure_lines}
    lines = enumerate(io.BytesIO(failures), 1)
    return b"".join(line for number, line in lines if number not in dropped)


def _notes_on_places(quarantine: str, problems: Sequence[Problem]) -> str:
    """Lines that show the next examination why these places in the shard are empty."""
    places = {position: one for one in problems if one.cut is not None for position in one.cut.positions}
    repair = Path(quarantine).name
    notes = [
        {"position": position, "reason": f"{one.place}: {one.what}", "quarantine": repair}
        for position, one in sorted(places.items())
    ]
    return "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in notes)
