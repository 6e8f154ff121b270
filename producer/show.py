"""Jobs and workers as text: tables for people, plain lines without a terminal, JSON for scripts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import click

from jobs.ledger.job import JobStatus, UnreadableJob
from jobs.wording import counted, on_one_line, printable

Workers = Mapping[str, Mapping[str, str]]
_FACTS = tuple(field.name for field in fields(JobStatus))


def say(text: str, *, err: bool = False) -> None:
    """Prints one line, whatever is in `text`: names and reasons come from Redis, where others write."""
    click.echo(on_one_line(text), err=err)


def state(job: JobStatus) -> str:
    """The state of the job in a word or two."""
    if job.state == "finished":
        return {"complete": "finished", "failures": "finished, with failures"}.get(job.outcome, job.outcome)
    if job.ending:
        return f"{job.ending}, ending"
    if job.paused:
        return "paused"
    if job.state == "open":
        return "being submitted"
    return "finishing" if job.state == "finishing" else "running" if job.started else "waiting"


def as_json(job: JobStatus | UnreadableJob) -> dict[str, Any]:
    """The job's status for `--json`; of one that cannot be read its id, the state "unreadable", and why."""
    if isinstance(job, UnreadableJob):
        return {"job_id": job.job_id, "state": "unreadable", "reason": job.reason}
    # asdict would copy every value.
    return {**{name: getattr(job, name) for name in _FACTS}, "eta_seconds": job.eta_seconds}


def duration(seconds: float | None) -> str:
    """`1h 02m`, `3m 20s`, `8s`; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 60}m {whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def as_json_text(column: str, why: str) -> str:
    """That a column is written as JSON text, and why, on one line."""
    return printable(f"{column}: written as JSON text, which json.loads turns back, because {why}")


def print_jobs(jobs: Sequence[JobStatus | UnreadableJob], workers: Workers) -> None:
    """Prints all jobs, a line each, the number of workers, and what is wrong with jobs' keys in Redis."""
    header = ("job", "state", "images", "failed", "images/s", "left", "output")
    rows = [
        (
            job.job_id,
            state(job),
            f"{job.done}/{job.total}",
            str(job.failed),
            rate(job),
            duration(job.eta_seconds),
            printable(job.output),
        )
        if isinstance(job, JobStatus)
        else (job.job_id, "cannot be read (another version?)", *5 * ("–",))
        for job in jobs
    ]
    _print_table(header, rows)
    say(f"{len(workers)} worker{'' if len(workers) == 1 else 's'}")
    for job in jobs:
        trouble = (
            job.reason if isinstance(job, UnreadableJob) else job.trouble and f"{job.job_id}: {job.trouble}"
        )
        if trouble:
            say(printable(trouble))


def print_job(job: JobStatus, workers: Workers, failures: Mapping[int, Mapping[str, Any]]) -> None:
    """Prints one job: counts, rate, time left, workers, the first failures."""
    say(f"{job.job_id}: {state(job)}{f' ({job.reason})' if job.reason else ''}")
    say(f"  output    {printable(job.output)}")
    held = f", {already_there(job.held)}" if job.held else ""
    counts = f"{job.done} of {job.total} done, {job.failed} failed, {job.left} left"
    say(f"  images    {counts}{held}{_flagged(job)}")
    if job.cut:
        say(f"  prompts   {cut_prompts(job.cut)}")
    say(f"  shards    {job.shards} in all, {job.shards_ready} waiting, {job.shards_leased} being rendered")
    say(f"  rate      {rate(job)} images/s, {duration(job.eta_seconds)} left")
    say(f"  model     {job.model}, priority {job.priority}, run {job.run}")
    say(f"  workers   {', '.join(job.workers) or '–'} on it, of {', '.join(workers) or 'none alive'}")
    if job.trouble:
        say(f"  trouble   {printable(job.trouble)}")
    for name, notice in job.notices.items():
        say(f"  waiting   {name}: {notice}")
    for name, doing in job.loading.items():
        say(f"  loading   {name}: {doing}")
    for name, reason in job.refusals.items():
        say(f"  refused   by {name}: {reason}")
    for shard, reason in job.broken.items():
        say(f"  set aside shard {shard}: {reason}")
    for index, failure in list(failures.items())[:10]:
        say(f"  failure   image {index} ({failure['image_id']}): {failure['reason']}")
    if len(failures) > 10:
        say(f"  failures  {len(failures) - 10} more: see failures.jsonl in the output, or --json")


def print_warning(text: str) -> None:
    """Prints a warning, if there is one."""
    if text:
        say(f"warning: {text}")


def print_skipped(count: int, first: Sequence[str], file: str | None = None) -> None:
    """Prints on standard error the first rows that were skipped, how many more, and where all are listed."""
    for row in first:
        say(f"skipped: {row}", err=True)
    if count > len(first):
        say(f"skipped: and {count - len(first)} more", err=True)
    if file is not None:
        say(f"skipped: all are listed in {file}", err=True)


def print_end(end: JobStatus) -> None:
    """Prints how a job ended: how many images, where, how fast, and what is lacking."""
    begin = f"{state(end)}{f' ({end.reason})' if end.reason else ''}"
    taken = end.ended - end.started
    # The time of a later run would not be that of all its images: earlier runs rendered some.
    time = f", {duration(taken)}" if end.run == 1 and end.started and taken > 0 else ""
    speed = f", {rate(end)} images/s" if end.images_per_second > 0 else ""
    failed = f", {end.failed} failed (see failures.jsonl)" if end.failed else ""
    held = f"; {already_there(end.held)}" if end.held else ""
    output = printable(end.output)
    images, of_images = counted(end.done, "image"), f"{end.done} of {counted(end.total, 'image')}"
    if end.broken:
        shards = ", ".join(map(str, end.broken))
        say(f"shards {shards} could not be read in Redis: submit the manifest again to render their images")
    if end.left and end.outcome == "failures" and not end.broken:
        say(
            f"{begin}: {of_images} counted{time}{speed}{failed}{_flagged(end)}; Redis "
            f"lost what it knew of the others: `imagemill retry {end.job_id}` renders those that "
            f"{output} lacks; if Redis lost its shards, too, submit the manifest again{held}"
        )
    elif end.left:
        say(
            f"{begin}: {of_images} rendered{time}{speed}{failed}{_flagged(end)}; those "
            f"of unfinished shards stay in the spool of {output} for the next submission{held}"
        )
    else:
        say(f"{begin}: {images} in {output}{time}{speed}{failed}{_flagged(end)}{held}")
    if end.cut:
        say(cut_prompts(end.cut))


def cut_prompts(count: int) -> str:
    """How many images were rendered of less than their whole prompt, and the remedy."""
    many = "1 prompt was" if count == 1 else f"{count:,} prompts were"
    return (
        f"{many} longer than the model's window and {'was' if count == 1 else 'were'} cut (prompt_cut in the "
        "metadata says where): shorten them, or set long_prompts: chunk, which Stable Diffusion and SDXL take"
    )


def progress_line(job: JobStatus) -> str:
    """The progress of the job in one line, for `watch` and `run`."""
    return on_one_line(
        f"{job.job_id}: {state(job)}, {job.done}/{job.total} images{doubts(job)}, {rate(job)} images/s, "
        f"{duration(job.eta_seconds)} left{''.join(f'; {line}' for line in waits(job))}"
    )


def rate(job: JobStatus) -> str:
    """The images a second of the job; a dash where there is no rate yet."""
    images = job.images_per_second
    if not images:
        return "–"
    # Large models take minutes for an image: two digits that say something, not 0.0.
    return f"{images:.1f}" if images >= 0.1 else f"{images:.2g}"


def already_there(images: int) -> str:
    """`1 was already there`, `7 were already there`."""
    return f"{images} {'was' if images == 1 else 'were'} already there"


def doubts(job: JobStatus) -> str:
    """How many images failed and how many are flagged; empty when there are none."""
    return (f", {job.failed} failed" if job.failed else "") + _flagged(job)


def waits(job: JobStatus) -> list[str]:
    """What each of the job's workers waits for, and what each loads, a line each."""
    notices = [on_one_line(f"{name} waits: {notice}") for name, notice in job.notices.items()]
    return notices + [on_one_line(f"{name}: {doing}") for name, doing in job.loading.items()]


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def _flagged(job: JobStatus) -> str:
    return f", {job.flagged} flagged (see metadata.jsonl)" if job.flagged else ""


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    rows = [[on_one_line(cell) for cell in row] for row in rows]
    if is_terminal():
        from rich.console import Console
        from rich.table import Table

        table = Table(*header, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        # A path may hold brackets that rich would take for markup.
        Console(markup=False, emoji=False).print(table)
        return
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
