"""The end of a job, on disk: what describes the output as a whole."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jobs.errors import LeaseLost
from jobs.file_hash import file_sha256
from jobs.output.card import dataset_card, is_ours, is_pattern
from jobs.output.contents import Contents, contents
from jobs.output.durable import remove_temporaries
from jobs.output.licences import keep_licences
from jobs.output.line_order import Places, Split
from jobs.output.metadata import Failure, imagemill_version
from jobs.output.output import CARD, FAILURES, PREVIEW, REPORT, Output
from jobs.output.split_table import drop_tables, write_split
from jobs.output.store import Stage, StageClosed
from jobs.wording import without_folders
from worker.finish.add_lines import LinesOf, add_lines
from worker.finish.preview import Cell, contact_sheet, spread

log = logging.getLogger(__name__)
_SAID = 10.0
"""Seconds of waiting from which on the log tells of it."""
_VERSIONS_OF = ("torch", "diffusers", "transformers", "pillow")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """How a job went. Times are ISO 8601 in UTC, `2026-01-31T12:00:00Z`."""

    job_id: str
    manifest: Mapping[str, Any]
    outcome: str
    """In the ledger's words: complete, failures, cancelled or stopped."""
    reason: str | None = None
    """Why it ended otherwise than by finishing."""
    images: int
    """Images that the job was to render; those that the output held already are not among them."""
    done: int
    failed: int
    flagged: int = 0
    """Done and kept, but doubted: one flat colour."""
    submitted_at: str
    started_at: str | None
    """None when no worker ever claimed a shard of it."""
    finished_at: str
    workers: Sequence[str]
    """Their names, of which job.json has the number: they name hosts."""
    broken: Mapping[int, str] = field(default_factory=dict)
    """Shards that could not be read, and why: their images are neither done nor failed."""


def finish_output(
    output: Output,
    report: JobReport,
    *,
    attempt: str = "1",
    check: Callable[[], None] = lambda: None,
    preview: bool = True,
    lines: LinesOf | None = None,
) -> int:
    """Add `lines`, write records.parquet, failures.jsonl, preview.jpg (`preview`), README.md and, last,
    job.json; then remove the spool.

    First, shards get what a crash right after their commit kept from them (`StoredShard.complete`). What
    killed writers left, in a bucket their uploads, is removed: no other process writes there at that point.
    Safe to run again, also after a crash: the same output and report give the same files. failures.jsonl
    exists only when something failed that the output does not hold; in a bucket, one that was there is empty
    else. The spool of a job that left images neither done nor failed (a cancelled one) stays: the next
    submission adopts from it. A README.md without our mark stays as it is, and the log says so. `check` is
    called before each change that could hit a newer job's files; it raises to prevent it.
    Returns how many images the job rendered of less than their whole prompt.
    Raises OutputError where a shard's metadata cannot be read, LeaseLost when a newer job has begun.
    """
    own = output.spool / "finish" / attempt
    own.mkdir(parents=True, exist_ok=True)
    stage = Stage(own, f"finish/{attempt}", check)
    check()
    for shard in output.incomplete():
        output.stored(shard).complete()
    try:
        if lines is not None:
            add_lines(output, lines, stage)
        split = Split(Places(output, report.job_id))
        found = contents(output, split)
        failures = output.failures()
        found.licences = keep_licences(output, found.models)
        table = _write_table(output, split, found, own)
        _describe(output, found, failures, stage, table, preview=preview)
        check()
        for folder in (output.path, output.private, output.jobs, *output.thousands()):
            remove_temporaries(folder)
        text = json.dumps(_job_json(report, found, len(failures)), ensure_ascii=False, indent=2)
        output.store.replace(REPORT, f"{text}\n".encode(), stage)
    except FileNotFoundError as error:
        if own.exists() and not isinstance(error, StageClosed):
            raise
        raise LeaseLost(
            f"{output.label}: another job has begun there, and describes it from now on"
        ) from None
    whole = report.done + report.failed >= report.images
    left = _attempts(output) if whole else [own]
    if output.in_bucket:
        check()
        # What those had uploaded who died before it had its name. No lease of this job is under way now.
        output.store.close_stages(partial(_wait, output, check))
    check()
    _remove_from_spool(output, left)
    return found.cut[report.job_id]


def _wait(output: Output, check: Callable[[], None], seconds: float) -> None:
    """Wait until the store has done what it may have begun to copy, for as long as the job is ours."""
    if seconds > _SAID:
        log.info("%s: an upload was left there; waiting %.0f s for copies of it", output.label, seconds)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 1.0))
        check()


def _write_table(output: Output, split: Split, found: Contents, own: Path) -> str | None:
    """Write the lines of all folders in their order; returns the file's name, None without any."""
    if output.in_bucket:
        return None
    if not len(split):
        drop_tables(output, own)
        return None
    name, found.columns = write_split(output, split, found.columns, own)
    found.ordered_by(file_sha256(output.path / name))
    return name


def _describe(
    output: Output,
    found: Contents,
    failures: Sequence[Failure],
    stage: Stage,
    table: str | None,
    *,
    preview: bool,
) -> None:
    """Write failures.jsonl, preview.jpg and README.md through `stage`, or remove those that have no content.

    A new job closes it (`Output.close_attempts`), so a paused finisher changes nothing, even just before
    its rename.
    """
    lines = "".join(f"{failure.to_json()}\n" for failure in failures).encode()
    sheet = _preview(output, found) if found.total and preview else b""
    for name, data in ((FAILURES, lines), (PREVIEW, sheet)):
        if data:
            output.store.replace(name, data, stage)
        else:
            output.store.remove(name, stage)
    if found.total:
        card = dataset_card(
            found,
            failures=len(failures),
            preview=preview,
            as_pattern=not output.in_bucket and is_pattern(output.path),
            table=table,
        )
        _write_card(output, card, stage)


def _attempts(output: Output) -> list[Path]:
    """The entries of the spool's folders. A link's target does not belong to this output."""
    if output.spool.is_symlink():
        return []
    folders = [folder for folder in output.spool.glob("*") if folder.is_dir() and not folder.is_symlink()]
    return [one for folder in folders for one in folder.iterdir()]


def _remove_from_spool(output: Output, left: Sequence[Path]) -> None:
    """Remove what attempts left, and nothing of a newer job's, however long this process was paused."""
    for one in left:
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one, ignore_errors=True)
        else:
            one.unlink(missing_ok=True)
    for folder in (*output.spool.glob("*"), output.spool):
        with suppress(OSError):  # another process writes there
            folder.rmdir()


def _write_card(output: Output, card: str, stage: Stage) -> None:
    with suppress(FileNotFoundError):
        if not is_ours(output.store.read(CARD).decode(errors="replace")):
            log.warning(
                "%s is not imagemill's card: it stays as it is, and no new card was written",
                output.named(CARD),
            )
            return
    output.store.replace(CARD, card.encode(), stage)


def _job_json(report: JobReport, found: Contents, failures: int) -> dict[str, Any]:
    return {
        "job_id": report.job_id,
        "outcome": report.outcome,
        "reason": None if report.reason is None else without_folders(report.reason),
        "images": {
            "asked": report.images,
            "done": report.done,
            "failed": report.failed,
            "flagged": report.flagged,
            **({"prompt_cut": cut} if (cut := found.cut[report.job_id]) else {}),
        },
        "output": {"images": found.total, "shards": len(found.images), "failures": failures},
        "times": {
            "submitted": report.submitted_at,
            "started": report.started_at,
            "finished": report.finished_at,
        },
        "workers": len(report.workers),
        "set_aside": {str(shard): without_folders(reason) for shard, reason in report.broken.items()},
        "versions": {"imagemill": imagemill_version(), "python": platform.python_version(), **_versions()},
        "manifest": report.manifest,
    }


def _versions() -> dict[str, str]:
    """The versions installed here, without importing anything: torch takes seconds."""
    found = {}
    for name in _VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _preview(output: Output, found: Contents) -> bytes:
    """The contact sheet's file. Pictures are read one by one: a hundred large ones fill a memory."""
    wanted, start = spread(found.total), 0
    chosen: dict[int, list[dict[str, Any]]] = {}
    for shard, count in found.images.items():
        here = {index - start for index in wanted if start <= index < start + count}
        if here:
            chosen[shard] = [record for i, record in enumerate(output.records(shard)) if i in here]
        start += count
    cells = [
        Cell(
            record["file_name"],
            record["width"],
            record["height"],
            prompt=str(record.get("text", "")),
            id=None if record.get("id") is None else str(record["id"]),
        )
        for records in chosen.values()
        for record in records
    ]
    pictures = (
        picture
        for shard, records in chosen.items()
        for picture in output.pictures(shard, {record["file_name"] for record in records})
    )
    return contact_sheet(cells, pictures)
