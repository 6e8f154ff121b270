"""`imagemill plan`: what a manifest asks for, what its output already has, and what the rest will cost.

Nothing is written: not to the output, not to Redis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.connection import live_connections, redis_url
from jobs.entry import Entry
from jobs.errors import LedgerError
from jobs.ledger.job import SlotsKey
from jobs.ledger.ledger_view import LedgerView
from jobs.output.lines import HeldLines
from jobs.output.nested_kinds import ColumnTypes
from jobs.output.output import Output
from jobs.output.stored_shard import damaged
from jobs.request import PICTURES
from jobs.settings import Settings
from producer.plan.survey import DeviceTime, Group, Holding, Survey, all_pictures_of, device_times, survey
from producer.prompt_files.reading import Reading
from producer.reporter import QUIET, Reporter
from producer.requests.expand import EqualLine, Identified, Repeats
from producer.requests.folder_entries import room_for
from producer.requests.line_count import Lines
from producer.requests.prepared import Prepared

MOST_ORPHANS = 1000
"""Orphans that a plan keeps; the others are counted."""
_WEIGHED = 32
"""Shards of one size whose files are looked at."""

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """An image that the output holds and the manifest does not ask for."""

    file: str
    image_id: str
    id: str | None
    prompt: str
    replaced: bool
    """Whether a new image has its id: it was changed."""


@dataclass(slots=True)
class Files:
    """Bytes of pictures and their metadata on disk, measured on those that the output holds."""

    weighed: dict[Size, tuple[int, int, int]] = field(default_factory=dict)
    """Shards, images and bytes of each size."""

    def of(self, groups: Sequence[Group]) -> tuple[int, int]:
        """Bytes of the images to render, and how many images that covers: those of sizes seen before."""
        total, images = 0.0, 0
        for group in groups:
            weighed = self.weighed.get((group.height, group.width))
            if weighed is not None:
                total += group.to_render * weighed[2] / weighed[1]
                images += group.to_render
        return round(total), images


@dataclass(frozen=True, slots=True)
class Deployment:
    """What Redis knows of the workers that would render."""

    unknown: str = ""
    """Why nothing is known; empty where Redis answered."""
    rates: Mapping[SlotsKey, float] = field(default_factory=dict)
    workers: int = 0
    writer: str | None = None
    """The job that writes to the output now."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known of a manifest before it is submitted."""

    prepared: Prepared
    survey: Survey
    reading: Reading
    duplicates: int
    """Lines that are equal to an earlier one in all they say."""
    lines: Lines
    changed: int | None
    """Images to render that replace an orphan with the same user's id; None when narrowed."""
    orphaned: int | None
    orphans: list[Orphan]
    """The first `MOST_ORPHANS` of them."""
    disk_bytes: int
    disk_images: int
    """How many of the images to render `disk_bytes` covers."""
    deployment: Deployment
    times: list[DeviceTime]
    remark: str
    """What is to be said of the number of shards; empty when nothing is."""
    json_columns: Mapping[str, str]
    """The user's columns that are written as JSON text, and why."""
    tasks: Mapping[str, int]
    """Images that are painted from pictures, by the names of these, joined by "+"."""
    input_files: int
    input_bytes: int
    """The pictures and adapters of the images to render, each once."""

    @property
    def new(self) -> int:
        """Images to render that replace none."""
        return self.survey.to_render - (0 if self.changed is None else self.changed)

    @property
    def row_evaluations(self) -> int:
        """Slot evaluations of all images to render."""
        return sum(group.row_evaluations for group in self.survey.groups)


def plan_submission(
    prepared: Prepared,
    settings: Settings,
    reporter: Reporter = QUIET,
    on_orphan: Callable[[Orphan], None] | None = None,
) -> Plan:
    """Reads every prompt and the output's metadata, and asks Redis if there is one.

    `reporter` counts the images that are read; `on_orphan` gets every orphan. Raises ManifestError for what
    is wrong in prompt files, OutputError for an output whose records cannot be read or whose columns no table
    holds beside the manifest's.
    """
    manifest, model = prepared.manifest, prepared.model
    reading, repeats, duplicates, equal, added = Reading(), Repeats(), 0, 0, 0

    def count(_entry: Entry) -> None:
        nonlocal duplicates
        duplicates += 1

    there = ColumnTypes(manifest.column_names())
    holding, held_lines, files = _held(prepared, there)

    inputs, tasks = prepared.inputs, Counter[str]()
    inputs.want_none()

    def take_inputs(image_id: str, entry: Entry) -> None:
        given = zip(PICTURES, all_pictures_of(entry.settings), strict=True)
        key = "+".join(name for name, sha256 in given if sha256 is not None)
        if key:
            tasks[key] += 1
        if image_id not in held_lines:
            inputs.want(entry.inputs)

    def pictures() -> Iterator[Identified]:
        nonlocal equal, added
        for keyed in prepared.entries(count, reading, repeats):
            image_id, entry = keyed
            repeated = type(keyed) is EqualLine
            equal += repeated
            if image_id in held_lines:
                added += not held_lines.has_line(image_id, entry.id, entry.columns)
            if not repeated:
                if inputs.some:
                    take_inputs(image_id, entry)
                yield keyed

    found = survey(pictures(), holding, reporter, model.pipeline)
    changed = orphaned = None
    orphans: list[Orphan] = []
    if not prepared.narrowed:
        changed = orphaned = 0
        for orphan in _orphans(prepared.output, holding):
            if on_orphan is not None:
                on_orphan(orphan)
            orphaned += 1
            changed += orphan.replaced
            if len(orphans) < MOST_ORPHANS:
                orphans.append(orphan)
    deployment = _ask_redis(prepared.output, settings)
    disk_bytes, disk_images = files.of(found.groups)
    input_files, input_bytes = inputs.total()
    return Plan(
        prepared=prepared,
        survey=found,
        reading=reading,
        duplicates=duplicates,
        lines=Lines(
            pictures=found.images,
            equal=equal,
            added=added,
            reused_ids=repeats.ids,
            first_reused_ids=repeats.first_ids,
        ),
        changed=changed,
        orphaned=orphaned,
        orphans=orphans,
        disk_bytes=disk_bytes,
        disk_images=disk_images,
        deployment=deployment,
        remark=_room(prepared, found),
        json_columns=reading.columns.beside(there) if found.to_render else {},
        tasks=tasks,
        input_files=input_files,
        input_bytes=input_bytes,
        times=device_times(found.groups, deployment.rates, model.revision, manifest.precision),
    )


def _room(prepared: Prepared, found: Survey) -> str:
    """What is to be said of the number of shards."""
    manifest, output, size = prepared.manifest, prepared.output, prepared.shard_size()
    sizes = Counter[Size]()
    for group in found.groups:
        sizes[group.height, group.width] += group.to_render
    shards = sum(-(-images // size.of_size(*of)) for of, images in sizes.items())
    room = room_for(manifest, output, output.shards(), shards, found.to_render)
    return room.remark if not room.refusal else f"a submission is refused: {room.refusal}"


def _held(prepared: Prepared, columns: ColumnTypes) -> tuple[Holding, HeldLines, Files]:
    """What the output holds, its lines, and the bytes of its pictures in the manifest's format; `columns`
    takes in the user's columns."""
    output, manifest = prepared.output, prepared.manifest
    # png ignores the quality.
    form = (manifest.image_format, manifest.image_quality)[: 1 if manifest.image_format == "png" else 2]
    holding, held_lines, files = Holding(), HeldLines(), Files()
    for _, stored in output.in_turn():
        kinds, images = set[tuple[int, int, bool]](), 0
        for record in stored.held_records():
            columns.add(record)
            try:
                holding.add(record["image_id"], record.get("id"))
                held_lines.add(record)
                own = (record["image_format"], record["image_quality"])[: len(form)]
                kinds.add((record["height"], record["width"], own == form))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise damaged(stored.label, f"the record of {record['file_name']}: {error!r}") from None
            images += 1
        if len(kinds) == 1:
            [(height, width, same_form)] = kinds
            shards, weighed, size = files.weighed.get((height, width), (0, 0, 0))
            if same_form and shards < _WEIGHED:
                size += stored.size()
                files.weighed[height, width] = (shards + 1, weighed + images, size)
    return holding, held_lines, files


def _orphans(output: Output, holding: Holding) -> Iterator[Orphan]:
    if holding.asked == holding.images:
        return
    for _, stored in output.in_turn():
        for record in stored.held_records():
            if holding.orphaned(record["image_id"]):
                yield Orphan(
                    f"{stored.name}/{record['file_name']}",
                    record["image_id"],
                    record.get("id"),
                    str(record.get("text", "")),
                    holding.replaced(record.get("id")),
                )


def _ask_redis(output: Output, settings: Settings) -> Deployment:
    if settings.redis_url is None and not live_connections(settings):
        return Deployment("no Redis")
    try:
        ledger = LedgerView(redis_url(settings))
        return Deployment("", ledger.rates(), len(ledger.workers()), ledger.writer(output.label))
    except LedgerError as error:
        return Deployment(str(error).splitlines()[0])
