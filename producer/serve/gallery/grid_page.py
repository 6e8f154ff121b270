"""The page of a sweep: pictures in a grid along what was swept."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from jobs.errors import OutputError
from producer.export.grid_layout import Axes
from producer.serve.gallery.address import base_of, number_in, place_in
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.line import START, Cursor
from producer.serve.gallery.shelf import Shelf
from producer.serve.gallery.sweep import GridTable, Sweep, read_sweep
from producer.serve.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What a page of a grid shows."""

    base: str
    """The address of the output."""
    label: str
    """What the output is called."""
    place: Cursor
    """Where its pictures begin."""
    sweep: Sweep
    axes: Axes
    table: GridTable | None
    number: int
    """Which page of the grid, from 0."""
    count: int
    """Of how many."""
    trouble: str
    """Why there is no table."""
    live: bool
    """Whether a job renders into the output."""


class GridPage:
    """Answers for the grid of an output."""

    def __init__(self, site: Site, shelf: Shelf) -> None:
        self._site, self._shelf = site, shelf

    async def grid(self, request: Request) -> Response:
        """Pictures along what was swept."""
        start, number = place_in(request.query_params), number_in(request.query_params, "page")
        asked = {name: request.query_params.get(name) for name in ("x", "y")}

        def read(output: GalleryOutput) -> _Shown:
            sweep = read_sweep(output, start)
            axes = sweep.proposed
            if asked["x"] is not None or asked["y"] is not None:
                axes = Axes(x=asked["x"] or None, y=asked["y"] or None)
            trouble, table, count = _axes_trouble(axes, sweep), None, 0
            if start == START and not sweep.records:
                trouble = output.absence() or trouble
            try:
                if sweep.axes and not trouble:  # without axes each prompt would have a page of one picture
                    table, count = _table(sweep, axes, number)
            except OutputError as error:
                trouble = str(error)
            return _Shown(
                base=base_of(request),
                label=output.output.label,
                place=start,
                sweep=sweep,
                axes=axes,
                table=table,
                number=number,
                count=count,
                trouble=trouble,
                live=self._shelf.is_live(output),
            )

        shown = await self._shelf.read(request, read)
        return self._site.pages.answer(request, "gallery_grid.html", shown)


def _axes_trouble(axes: Axes, sweep: Sweep) -> str:
    """Why pictures cannot be laid out along these axes; empty where they can."""
    for axis, name in (("x", axes.x), ("y", axes.y)):
        if name is not None and name not in sweep.axes:
            there = ", ".join(sweep.axes)
            return f"{axis} = {name}: these pictures do not differ in it; they differ in {there or 'nothing'}"
    if axes.x is not None and axes.x == axes.y:
        return f"x and y are both {axes.x}: choose two, or nothing for one of them"
    return ""


def _table(sweep: Sweep, axes: Axes, number: int) -> tuple[GridTable | None, int]:
    pages = sweep.pages(axes)
    if number >= len(pages):
        return None, len(pages)
    return sweep.table(pages[number]), len(pages)
