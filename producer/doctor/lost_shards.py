"""Shards that were there and are gone: by what job.json counts, and in an export by their numbers.

Numbers alone do not show what jobs wrote: a cancelled job leaves some unused, below those that the next one
takes. But a job that finishes counts all the output's shards, of every job, and only a repair removes one.

An export has no job.json. Its shards are numbered without a gap, which is the only sign of a lost one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from jobs.output.card import is_ours
from jobs.output.kept_names import shard_entries
from jobs.output.output import CARD, PREVIEW, PRIVATE, REPORT, Output
from jobs.output.shard_names import ShardNames
from jobs.wording import counted, shown
from producer.doctor.findings import Problem
from producer.doctor.quarantine import QUARANTINE
from producer.doctor.soundness import file_problem
from producer.export.bucket_target import MARK

_NAMED = 10
"""Ranges of numbers that a message names."""


@dataclass(frozen=True, slots=True)
class _Report:
    """What job.json says: how many shards there were when a job had last finished, and when that was."""

    shards: int
    finished: float
    """Seconds since 1970; 0.0 when it does not say."""


@dataclass(slots=True)
class Lost:
    """What is known of shards that are not there."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    explained: bool = False
    """Whether job.json counts shards that are in quarantine."""


def lost_shards(output: Output) -> Lost:
    """Which of its shards the output has lost, and whether job.json, which shows that, is a report."""
    lost = Lost()
    # Before the shards are listed: a job may finish meanwhile, and count some more.
    report = _read_report(output)
    committed = output.shards()
    # Something else in a shard's place is a problem of its own.
    there = {*committed, *remains(output)}
    if output.in_bucket and output.store.exists(MARK):
        what = "is the mark of an export that goes on, or was cut short: shards are not there yet"
        lost.problems.append(
            Problem(
                kind="lost", file=MARK, what=what, remedy="run the same export again, which goes on with it"
            )
        )
    elif isinstance(report, Problem):
        lost.problems.append(report)
    elif report is not None:
        _count(output, len(committed), there, report, lost)
    elif not _is_export(output):
        lost.notes.append(f"{REPORT}: not there: no job has finished here")
    elif gaps := _gaps(there):
        lost.problems.append(
            Problem(
                kind="lost",
                file=CARD,
                what="is an export's, whose shards are numbered without a gap: "
                + _none_called(output.names, gaps),
                remedy="restore it from a copy, or export the output again",
            )
        )
    else:
        lost.notes.append(f"{CARD}: is an export's: whether shards are gone after the last cannot be known")
    return lost


def _read_report(output: Output) -> _Report | Problem | None:
    """What job.json says, or what is wrong with it; None where there is none."""
    try:
        report = output.read_json(REPORT)
        return _Report(int(report["output"]["shards"]), _finished(report))
    except FileNotFoundError:
        return None
    except OSError as error:
        return file_problem(output.named(REPORT), REPORT, error)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        what = f"is not a job's report ({shown(str(error))})"
        remedy = "remove it: the next job that finishes writes it"
        return Problem(kind="report", file=REPORT, what=what, remedy=remedy)


def _finished(report: dict[str, object]) -> float:
    times = report.get("times")
    finished = times.get("finished") if isinstance(times, dict) else None
    with contextlib.suppress(ValueError, OverflowError):
        if isinstance(finished, str):
            return datetime.fromisoformat(finished).timestamp()
    return 0.0


def _count(output: Output, committed: int, there: Collection[int], report: _Report, lost: Lost) -> None:
    """Adds to `lost` the shards that the report counts and of which nothing is `there`."""
    if report.shards <= len(there):
        return
    set_aside = {n: repair for n, repair in _set_aside(output, report.finished) if n not in there}
    what = f"counts {counted(report.shards, 'shard')}, {committed} {'is' if committed == 1 else 'are'} there"
    if set_aside:
        lost.explained = True
        repairs = sorted({*set_aside.values()}, key=int)
        names = _names(output.names, [(n, n) for n in sorted(set_aside)])
        what += f", and in {QUARANTINE}/{', '.join(repairs)} what a repair set aside: {names}"
    known = {*there, *set_aside}
    if report.shards <= len(known):
        lost.notes.append(f"{REPORT}: {what}")
        return
    if gaps := _gaps(known):
        what += f"; {_none_called(output.names, gaps)}"
    elif known:
        what += f"; those after {output.names.name(max(known))} are gone"
    remedy = "restore it from a copy, or submit the manifest again, which renders what is lacking"
    lost.problems.append(Problem(kind="lost", file=REPORT, what=what, remedy=remedy))


def remains(output: Output, folder: str = "") -> set[int]:
    """The shards of which there is anything in a folder of the output."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in shard_entries(output.store, output.names, folder):
            # Not an empty folder, nor a file in a folder's place.
            inside = f"{folder}/{entry.name}" if folder else entry.name
            if _holds_anything(output, inside) if entry.is_folder else entry.ending:
                found.add(entry.shard)
    return found


def _holds_anything(output: Output, folder: str) -> bool:
    try:
        return any(True for _ in output.store.list(folder))
    except OSError:
        return True


def _set_aside(output: Output, since: float) -> Iterator[tuple[int, str]]:
    """Shards of which repairs set something aside, and the repair.

    Not those of repairs before the report: what it counts was there after them.
    """
    for name in sorted(one.name for one in output.store.list(QUARANTINE) if one.name.isdecimal()):
        folder = f"{QUARANTINE}/{name}"
        with contextlib.suppress(FileNotFoundError):
            if output.store.modified(f"{folder}/problems.json") >= since:
                yield from ((number, name) for number in remains(output, folder))


def _is_export(output: Output) -> bool:
    """Whether `imagemill export` wrote the folder: it has our card, without the contact sheet that is in a
    job's, and nothing else that jobs leave."""
    if any(True for _ in output.store.list(PRIVATE)):
        return False
    try:
        card = output.store.read(CARD).decode(errors="replace")
    except OSError:
        return False
    return is_ours(card) and f"]({PREVIEW})" not in card


def _gaps(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of the numbers that are left out below the largest of these."""
    return [(one + 1, other - 1) for one, other in pairwise(sorted({-1, *numbers})) if other > one + 1]


def _none_called(names: ShardNames, gaps: Collection[tuple[int, int]]) -> str:
    return f"no shard is called {_names(names, gaps)}"


def _names(form: ShardNames, ranges: Collection[tuple[int, int]]) -> str:
    """`00001, 00003–00005`; of many ranges the first."""
    names = [form.name(a) if a == b else f"{form.name(a)}–{form.name(b)}" for a, b in ranges]
    return ", ".join([*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])])
