"""A plan as text, about a screen of it, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jobs.errors import OutputError
from jobs.output.durable import written_atomically
from jobs.pipelines.pipeline_task import called
from jobs.wording import counted, shown
from producer.plan.plan import Orphan, Plan
from producer.plan.survey import REDIS_BYTES, Listed
from producer.show import as_json_text, duration

_FEW = 3
"""Orphans that are printed; JSON has `producer.plan.plan.MOST_ORPHANS`, and --orphans all."""
_MOST_GROUPS = 20


@contextmanager
def listing(file: Path | None) -> Iterator[Callable[[Orphan], None] | None]:
    """Yields what writes an orphan to the file, a line of JSON each; None without a file.

    The file appears at the end. Raises OutputError when it cannot be written.
    """
    if file is None:
        yield None
        return

    def write(orphan: Orphan) -> None:
        with _errors_about(file):
            lines.write(f"{json.dumps(asdict(orphan))}\n".encode())

    with ExitStack() as stack:
        with _errors_about(file):
            lines = stack.enter_context(written_atomically(file))
        yield write
        with _errors_about(file):
            stack.close()


@contextmanager
def _errors_about(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror}): name another place") from None


def report(plan: Plan) -> None:
    """Prints the plan, about a screen of it."""
    prepared, found = plan.prepared, plan.survey
    narrowed = f" ({prepared.narrowed})" if prepared.narrowed else ""
    click.echo(
        f"{prepared.manifest.name}: {counted(found.images, 'image')}{narrowed} by {prepared.model.label}, "
        f"{prepared.manifest.image_format}, into {prepared.output.label}"
    )
    for remark in (prepared.remark, plan.remark):
        if remark:
            click.echo(f"  {remark}")
    _print_groups(plan)
    click.echo()
    for head, lines in (
        ("new", [f"{plan.new:,}"]),
        ("changed", [_changed(plan)]),
        ("unchanged", [f"{found.held:,}"]),
        ("orphaned", list(_orphaned(plan))),
        ("lines", list(plan.lines.remarks())),
        ("left out", list(_left_out(plan))),
        ("syntax", list(plan.reading.marks.warnings(prepared.manifest.read_syntax))),
        ("columns", [as_json_text(name, why) for name, why in plan.json_columns.items()]),
        ("from rows", list(plan.reading.told())),
        ("tasks", list(_tasks(plan))),
        ("inputs", list(_inputs(plan))),
        ("now", list(_now(plan))),
        ("time", list(_times(plan))),
        ("disk", [_disk(plan)]),
        ("Redis", [_redis(plan)]),
        ("first", [_request(one) for one in found.first]),
        ("last", [_request(one) for one in found.last]),
    ):
        for number, line in enumerate(lines):
            click.echo(f"  {head if number == 0 else '':<10} {line}")


def _print_groups(plan: Plan) -> None:
    found, groups = plan.survey, plan.survey.groups
    table = [["height x width", "steps", "guided", "images", "to render", "slots"]]
    for group in groups[:_MOST_GROUPS]:
        size, guided = f"{group.height} x {group.width}", "yes" if group.guided else "no"
        figures = (group.images, group.to_render, group.row_evaluations)
        table.append([size, f"{group.num_inference_steps}", guided, *(f"{figure:,}" for figure in figures)])
    if len(groups) > 1:
        more = f"{len(groups) - _MOST_GROUPS} more, all" if len(groups) > _MOST_GROUPS else "all"
        figures = (found.images, found.to_render, plan.row_evaluations)
        table.append([more, "", "", *(f"{figure:,}" for figure in figures)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _changed(plan: Plan) -> str:
    if plan.changed is None:
        return f"unknown: {plan.prepared.narrowed} leaves out other images, so a new one may be a changed one"
    return f"{plan.changed:,}" + (": the output has their ids, with other settings" if plan.changed else "")


def _orphaned(plan: Plan) -> Iterator[str]:
    if plan.orphaned is None:
        yield f"unknown: {plan.prepared.narrowed} asks for a part of the images"
        return
    replaced = f", {plan.changed:,} of them changed" if plan.changed else ""
    yield f"{plan.orphaned:,}" + (f": in the output, and not asked for{replaced}" if plan.orphaned else "")
    for orphan in plan.orphans[:_FEW]:
        named = "" if orphan.id is None else f" id {shown(orphan.id)}"
        yield f"{shown(orphan.file)}{named} {_short(orphan.prompt)}"
    if plan.orphaned > _FEW:
        yield f"and {plan.orphaned - _FEW:,} more: --orphans FILE lists them all"


def _left_out(plan: Plan) -> Iterator[str]:
    if plan.duplicates:
        yield f"{counted(plan.duplicates, 'line')} asking for an image that another line also asks for"
    yield from plan.reading.left_out()
    if plan.reading.skipped:
        yield f"{counted(plan.reading.skipped, 'row')} with something wrong: {plan.reading.skipped_rows[0]}"


def _tasks(plan: Plan) -> Iterator[str]:
    """How many images are painted in which way, where some are painted from pictures."""
    if plan.tasks:
        alone = plan.survey.images - sum(plan.tasks.values())
        counts = {**plan.tasks, **({"": alone} if alone else {})}
        yield ", ".join(f"{called(key)} {count:,}" for key, count in sorted(counts.items()))


def _inputs(plan: Plan) -> Iterator[str]:
    """What is copied, or read where it lies."""
    if plan.input_files:
        files = f"{counted(plan.input_files, 'file')}, {_bytes(plan.input_bytes)}"
        if plan.prepared.manifest.inputs == "copy":
            yield f"{files}: a submission copies each into the output, unless it is there"
        else:
            yield f"{files}: workers read each where it lies (inputs: reference)"


def _now(plan: Plan) -> Iterator[str]:
    if plan.deployment.writer is not None:
        yield f"{plan.deployment.writer} is writing there: what it has not committed counts as to render"


def _times(plan: Plan) -> Iterator[str]:
    to_render, workers = plan.survey.to_render, plan.deployment.workers
    if to_render == 0:
        yield "none"
    elif plan.deployment.unknown:
        yield f"unknown: {plan.deployment.unknown}"
    elif not plan.times:
        yield "unknown: no worker has rendered this model at these sizes in the last 30 days"
    for time in plan.times:
        alive = (
            f"; {duration(time.seconds / workers)} if all {workers} workers share it" if workers > 1 else ""
        )
        yield (
            f"{duration(time.seconds)} on {time.device} in {time.precision}, without loading the model"
            f"{alive}{_others(to_render - time.images)}"
        )


def _disk(plan: Plan) -> str:
    to_render = plan.survey.to_render
    if plan.disk_images == 0:
        return "unknown: the output holds no picture of these sizes in this format" if to_render else "0"
    each, others = _bytes(plan.disk_bytes / plan.disk_images), _others(to_render - plan.disk_images)
    return f"{_bytes(plan.disk_bytes)}: {each} an image, measured on those in the output{others}"


def _others(images: int) -> str:
    return f"; unknown for {counted(images, 'image')} of other sizes" if images else ""


def _redis(plan: Plan) -> str:
    to_render = plan.survey.to_render
    if to_render == 0:
        return "0"
    total = _bytes(to_render * REDIS_BYTES)
    return f"about {total}: {REDIS_BYTES} bytes an image, measured over prompts of 4 to 20 words"


def _request(one: Listed) -> str:
    request = one.entry.request
    named = "" if one.entry.id is None else f" id {shown(one.entry.id)}"
    return (
        f"{'there' if one.held else 'new  '} {request.height} x {request.width}, "
        f"{request.num_inference_steps} steps {request.scheduler}, guidance {request.guidance_scale:g}, "
        f"seed {request.seed},{named} {_short(request.prompt)}"
    )


def _short(text: str) -> str:
    """A prompt's beginning, in quotes; what would break the line is escaped."""
    text = text if len(text) <= 40 else f"{text[:39]}…"
    return f'"{text}"' if text.isprintable() else repr(text)


def _bytes(number: float) -> str:
    """`800 bytes`, `1.2 MB`: decimal, as disks are sold."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values; what is unknown is null."""
    prepared, found, deployment = plan.prepared, plan.survey, plan.deployment
    return {
        "name": prepared.manifest.name,
        "model": prepared.model.label,
        "revision": prepared.model.revision,
        "precision": prepared.manifest.precision,
        "output": prepared.output.label,
        "narrowed": prepared.narrowed,
        "images": found.images,
        "new": plan.new,
        "changed": plan.changed,
        "unchanged": found.held,
        "orphaned": plan.orphaned,
        "duplicates": plan.duplicates,
        "equal_lines": plan.lines.equal,
        "added_lines": plan.lines.added,
        "reused_ids": plan.lines.reused_ids,
        "skipped": plan.reading.skipped,
        "skipped_rows": plan.reading.skipped_rows,
        "json_columns": dict(plan.json_columns),
        "comments": plan.reading.comments,
        "dropped_flags": plan.reading.dropped_flags,
        "settings_of_columns": plan.reading.settings_of_columns,
        "unguided_rows": plan.reading.unguided,
        "syntax": list(plan.reading.marks.warnings(prepared.manifest.read_syntax)),
        "groups": [group._asdict() for group in found.groups],
        "row_evaluations": plan.row_evaluations,
        "times": [time._asdict() for time in plan.times],
        "times_unknown": deployment.unknown,
        "workers": None if deployment.unknown else deployment.workers,
        "writer": deployment.writer,
        "disk_bytes": plan.disk_bytes if plan.disk_images == found.to_render else None,
        "disk_bytes_of": {"images": plan.disk_images, "bytes": plan.disk_bytes},
        "redis_bytes": found.to_render * REDIS_BYTES,
        "tasks": dict(plan.tasks),
        "input_files": plan.input_files,
        "input_bytes": plan.input_bytes,
        "first": [_as_json(one) for one in found.first],
        "last": [_as_json(one) for one in found.last],
        "orphans": [asdict(orphan) for orphan in plan.orphans],
    }


def _as_json(one: Listed) -> dict[str, Any]:
    listed = {"image_id": one.image_id, "held": one.held, "id": one.entry.id}
    return listed | one.entry.request.to_mapping() | {"columns": dict(one.entry.columns)}
