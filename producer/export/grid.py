"""`--to grid`: pages of pictures laid out along two columns of the metadata, or simply side by side.

A page has what is equal in everything but the axes. First all records are looked at, then each page is drawn
as soon as its last picture came; until then its pictures wait in files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import OutputError
from jobs.wording import counted
from producer.export.consumer import Written
from producer.export.grid_layout import Axes, Page
from producer.export.grid_page import Lettering, draw_page, draw_plain, scale_of
from producer.export.grid_plan import Plan
from producer.export.names import NameTemplate, TakenNames
from producer.export.source import Picture, Record

_WAITING = ".waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class GridOptions:
    """How a grid is laid out."""

    axes: Axes
    plain: bool
    """Pictures alone: no labels, no space between them, in their own size."""
    font: Path | None
    """A file of the labels' font; None for Pillow's own."""


class Grid:
    """PNG pages of pictures."""

    def __init__(self, template: NameTemplate, options: GridOptions) -> None:
        self._template, self._options = template, options
        self._plan = Plan(options.axes, [name for name in template.columns if name is not None])
        self._lettering = None if options.plain else Lettering.of(options.font)

    def add(self, record: Record) -> None:
        self._plan.add(record)

    def write(self, target: Path, pictures: Iterator[Picture]) -> Written:
        pages = self._plan.pages()
        names = self._names(pages)
        if self._lettering is None:
            _check_plain(pages)
        largest = self._plan.largest()
        scale = scale_of(pages, largest) if self._lettering is not None else 1
        cell = max(1, round(largest[0] * scale)), max(1, round(largest[1] * scale))
        waiting = target / _WAITING
        waiting.mkdir(parents=True)
        page_of = {index: page for page in pages for index in page.indices}
        lacking = [len(page.pictures) for page in pages]
        for index, picture in enumerate(pictures):
            (waiting / str(index)).write_bytes(picture.data)
            page = page_of[index]
            lacking[page.number] -= 1
            if lacking[page.number] == 0:
                file = target / names[page.number]
                if self._lettering is None:
                    draw_plain(page, waiting, file)
                else:
                    draw_page(page, cell, self._lettering, waiting, file)
                for done in page.indices:
                    (waiting / str(done)).unlink()
        waiting.rmdir()
        return Written(pages=len(pages), remarks=self._remarks(pages, scale))

    def _names(self, pages: Sequence[Page]) -> list[str]:
        """The files' names. Raises OutputError for a column in which a page's pictures differ."""
        taken, names = TakenNames(), []
        for page in pages:
            what = f"page {page.number} (of {page.pictures[0].called})"

            def column(name: str, page: Page = page) -> object:
                return self._plan.shared_value(page, name)

            name = self._template.named(column, page.number, ".png", what)
            taken.add(
                name, page.pictures[0].image_id, lambda number, key: f"page {number} (of image {key:016x})"
            )
            names.append(name)
        return names

    def _remarks(self, pages: Sequence[Page], scale: float) -> tuple[str, ...]:
        remarks = []
        missing = sum(page.missing for page in pages)
        if missing:
            remarks.append(f"{counted(missing, 'cell')} without a picture")
        if scale < 1:
            remarks.append(f"pictures at {scale:.0%} of their size, so that a page is not too large")
        if self._lettering is not None and self._lettering.replaced:
            remarks.append(
                f"{counted(len(self._lettering.replaced), 'character')} that the labels' font lacks drawn as "
                "? or without an accent: name another font by --font"
            )
        return tuple(remarks)


def _check_plain(pages: Sequence[Page]) -> None:
    """Raises OutputError for a page that is no full rectangle, or has more or fewer pictures than others."""
    first = pages[0]
    for page in pages:
        what = f"the page of {page.pictures[0].called}"
        number = counted(len(page.pictures), "picture")
        if page.columns * page.rows != len(page.pictures):
            raise OutputError(
                f"{what} would have {number} in {page.columns} x {page.rows} cells, and a program would "
                "take an empty cell for a picture: name an axis, as --x seed, render what is missing, or "
                "leave out --plain"
            )
        if len(page.pictures) != len(first.pictures):
            raise OutputError(
                f"{what} would have {number}, and the first page {len(first.pictures)}: render what is "
                "missing, or leave out --plain"
            )
