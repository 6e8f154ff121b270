"""Pictures of a sweep in a grid: which settings differ, and which stand along the axes.

A grid is of the images from one place on, at most MOST of them: a plan must know all of its pictures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobs.columns import RENDERED_PREFIX
from jobs.errors import OutputError
from jobs.output.lines import columns_of
from jobs.request import IMAGE_SETTINGS
from producer.export.columns import value_of
from producer.export.grid_layout import Axes, Page
from producer.export.grid_plan import Plan
from producer.serve.gallery.damage import Damage
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.line import Cursor

MOST: Final = 1_000
"""Images of a grid."""
BUDGET: Final = 0.1
"""Seconds after which no further images are read."""
_LEAST: Final = 200
"""Images that are read however long it takes."""
_MOST_TROUBLES: Final = 5
"""Damaged shards after which no further one is read."""
_MOST_VALUES: Final = 40
"""Of an axis that is proposed."""
MOST_CELLS: Final = 400
"""Of a page: larger ones are not shown."""
_NO_AXES: Final = frozenset({"model", "revision", "precision", "image_format", "image_quality"})
_PREFERRED: Final = ("guidance_scale", "num_inference_steps", "scheduler", "strength")
"""Settings that people sweep, first."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A place of a grid's page."""

    place: Cursor
    image_id: str
    caption: str


@dataclass(frozen=True, slots=True)
class GridTable:
    """A page of a grid as a table."""

    heading: str
    shared: str
    x: str
    y: str
    """What its columns and rows are; empty where they are nothing."""
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]
    """Each row's label and cells; None where there is no picture."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Images from one place on, and what differs among them."""

    records: Sequence[tuple[Cursor, Mapping[str, Any]]]
    next: Cursor | None
    """Where images follow that are not among these."""
    axes: Sequence[str]
    """The settings and columns along which they can be laid out: those that were swept first."""
    troubles: Sequence[str] = ()
    """What could not be read, and was passed over."""

    @property
    def proposed(self) -> Axes:
        """Axes that suit most people: x has what was swept first, y what else was, or the prompts."""
        if not self.axes:
            return Axes()
        x, *others = self.axes
        settled = [name for name in others if name != "seed"]
        return Axes(x=x, y=next(iter(settled or others), None))

    def pages(self, axes: Axes) -> list[Page]:
        """The pages of a grid along these axes. Raises OutputError where two pictures have one place."""
        plan = Plan(axes, ())
        for _, record in self.records:
            plan.add(dict(record))
        return plan.pages() if self.records else []

    def table(self, page: Page) -> GridTable:
        """A page as a table. Raises OutputError for one of too many cells."""
        if page.columns * page.rows > MOST_CELLS:
            raise OutputError(
                f"this page would have {page.columns:,} x {page.rows:,} cells, more than {MOST_CELLS}: "
                "name an axis with fewer values"
            )
        cells: dict[tuple[int, int], Cell] = {}
        for number, (one, (column, row)) in enumerate(zip(page.pictures, page.places, strict=True)):
            place, record = self.records[one.position]
            caption = page.captions[number] if page.captions else ""
            cells[column, row] = Cell(place, record["image_id"], caption)
        return GridTable(
            heading=page.heading,
            shared=page.shared,
            x="" if page.x is None else page.x.name,
            y="" if page.y is None else page.y.name,
            columns=() if page.x is None else page.x.labels,
            rows=[
                (
                    "" if page.y is None else page.y.labels[row],
                    [cells.get((column, row)) for column in range(page.columns)],
                )
                for row in range(page.rows)
            ],
        )


def read_sweep(
    output: GalleryOutput, start: Cursor, clock: Callable[[], float] = time.monotonic, budget: float = BUDGET
) -> Sweep:
    """The images from a place on. Raises OutputError where the output itself cannot be read."""
    ends = clock() + budget
    records: list[tuple[Cursor, Mapping[str, Any]]] = []
    troubles: list[str] = []
    place: Cursor | None = start
    while place is not None:
        shard = output.shards.following(place.shard)
        if shard is None:
            place = None
            break
        first = place.position if shard == place.shard else 0
        place, stopped = Cursor(shard + 1, 0), False
        damage = Damage(output.output)
        try:
            for one, record in output.records(shard, first, damage):
                if len(records) == MOST or (len(records) >= _LEAST and clock() > ends):
                    place, stopped = one, True
                    break
                records.append((one, record))
        except OutputError as error:  # its store refuses it
            damage.note(error)
        if damage.told:
            troubles.append(damage.told)
        enough = len(records) >= _LEAST and clock() > ends
        if stopped or enough or len(troubles) == _MOST_TROUBLES:
            break
    return Sweep(records, place, _axes(records), troubles)


def _axes(records: Sequence[tuple[Cursor, Mapping[str, Any]]]) -> list[str]:
    """What differs: settings first, then a prompt's id, prompts and the user's columns; fewest values last
    among the user's."""
    if not records:
        return []
    own = dict.fromkeys(name for _, record in records for name in columns_of(record))
    settings = [name for name in IMAGE_SETTINGS if name != "prompt" and name not in _NO_AXES]
    ordered = sorted(settings, key=lambda name: (name not in _PREFERRED, name == "seed"))
    found = []
    for name in (*ordered, "prompt", "id", *own):
        if name.startswith(RENDERED_PREFIX):
            continue
        values: set[Hashable] = set()
        for _, record in records:
            values.add(_hashable(_value(record, name)))
            if len(values) > _MOST_VALUES:
                break
        if 1 < len(values) <= _MOST_VALUES:
            found.append(name)
    return found


def _value(record: Mapping[str, Any], name: str) -> Any:
    return record.get(name) if name not in IMAGE_SETTINGS else value_of(dict(record), name)


def _hashable(value: Any) -> Hashable:
    return json.dumps(value) if isinstance(value, (list, dict)) else value
