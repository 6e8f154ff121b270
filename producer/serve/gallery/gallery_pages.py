"""The pages of an output: its pictures, piece by piece.

No address holds a path: an output is its key, a picture is its shard and its place in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from producer.serve.gallery.address import (
    asked_of,
    base_of,
    check,
    count_in,
    filter_of,
    number_in,
    place_in,
    places_in,
    written,
)
from producer.serve.gallery.filter import FIELDS, Filter, WrongFilter
from producer.serve.gallery.gallery_output import BUDGET, PAGE, Extent, GalleryOutput, Piece
from producer.serve.gallery.grid_page import GridPage
from producer.serve.gallery.line import START, Cursor, Line
from producer.serve.gallery.picture_files import file_routes
from producer.serve.gallery.picture_page import PicturePage
from producer.serve.gallery.shelf import Shelf
from producer.serve.gallery.wanted import EVERY
from producer.serve.site import Site

_NOTHING: Final = Piece((), None, complete=True)
LOOK_SECONDS: Final = 3
"""Seconds from one look for new pictures to the next, while a job renders."""


def routes(site: Site) -> list[Route]:
    """The pages of outputs."""
    shelf = Shelf(site)
    pages, one, sweep = _GalleryPages(site, shelf), PicturePage(site, shelf), GridPage(site, shelf)
    return [
        Route("/outputs/{key}", pages.gallery),
        Route("/outputs/{key}/page", pages.piece),
        Route("/outputs/{key}/bar", pages.bar),
        Route("/outputs/{key}/new", pages.new),
        Route("/outputs/{key}/grid", sweep.grid),
        Route("/outputs/{key}/neighbour", one.neighbour),
        Route("/outputs/{key}/{shard}/{position}", one.picture),
        *file_routes(shelf),
    ]


@dataclass(frozen=True, slots=True)
class _Section:
    """Images of a piece that follow each other without a gap."""

    lines: Sequence[Line]
    here: str
    """The address that gives them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A piece of a gallery as a page shows it; without anything but its address, one of no image."""

    base: str
    """The address of the output."""
    filter: Filter = EVERY
    query: str = ""
    """The filter, for what follows other parts of an address."""
    asks: str = ""
    """The filter, for what follows nothing."""
    live: bool = False
    """Whether a job renders into the output."""
    place: Cursor = START
    piece: Piece = _NOTHING
    sections: Sequence[_Section] = ()
    found: str = "0"
    """Whether a search has found something, as addresses say it: 0 or 1, or nothing where that is open."""
    troubles: Sequence[str] = ()
    all_failed: bool = False
    """Whether there are shards, and no picture in any of them."""
    absence: str = ""
    """Why there is no output."""
    was_absent: bool = False
    """Whether the page that this is added to says that there is none."""
    backwards: bool = False
    further: str | None = None
    tail: str = ""
    earlier: str | None = None
    """Addresses: of what follows, of what comes while a job renders, and of what is before."""
    extent: Extent | None = None
    searched: int | None = None
    """Of how many images a search has looked at how many."""
    reached: Extent | None = None
    """How much there is by now; None where that is not told."""
    every: int = LOOK_SECONDS


@dataclass(frozen=True, slots=True)
class _PiecePage:
    """A piece alone."""

    shown: _Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class _GalleryPage:
    """The first piece, with all around it."""

    shown: _Shown
    label: str
    """What the output is called."""
    job: str | None
    """The job that writes into it."""
    asked: Mapping[str, str]
    """What the form says."""
    wrong: str = ""
    """What is wrong with that."""
    notice: str = ""
    """What may be wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewPage:
    """How many pictures came since a page was made."""

    base: str
    live: bool
    extent: Extent
    seen: int
    every: int = LOOK_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class _BarPage:
    """How much there is, and the way to any place of it."""

    base: str
    live: bool
    extent: Extent
    place: Cursor
    filter: Filter
    every: int = LOOK_SECONDS


class _GalleryPages:
    def __init__(self, site: Site, shelf: Shelf) -> None:
        self._site, self._shelf = site, shelf

    async def gallery(self, request: Request) -> Response:
        """The first page from a place on, with all around it; what is wrong with a filter under its form."""

        def read(output: GalleryOutput) -> _GalleryPage:
            live, base = self._shelf.is_live(output), base_of(request)
            page = _GalleryPage(
                shown=_Shown(base=base),
                label=output.output.label,
                job=self._shelf.job_of(output),
                asked={name: request.query_params.get(name, "") for name in FIELDS},
            )
            try:
                taken = asked_of(request)
                notice = output.known.check(taken)
            except WrongFilter as error:
                return replace(page, wrong=str(error))
            return replace(page, shown=self._shown(request, output, taken, live=live), notice=notice)

        page = await self._shelf.read(request, read)
        return self._site.pages.answer(request, "gallery.html", page, status=400 if page.wrong else 200)

    async def piece(self, request: Request) -> Response:
        """Further images, alone; at the end of a page that follows a job, with how much there is by now."""
        taken, asks_again = filter_of(request), request.query_params.get("tail") == "1"

        def read(output: GalleryOutput) -> _Shown:
            check(output, taken)
            # Asked first: what is not there once no job renders does not come any more.
            live = self._shelf.is_live(output)
            shown = self._shown(request, output, taken, live=live)
            if shown.absence:  # what is on the page stays, under what the error says
                raise HTTPException(502, shown.absence)
            if asks_again and shown.further is None and taken.is_empty:
                # Also where nothing came: the shards may have been listed before the last ones were shown.
                shown = replace(shown, reached=output.extent(reported=not live))
            # The page that this piece is added to has the earlier ones, or the way to them.
            return shown if shown.backwards else replace(shown, earlier=None)

        page = _PiecePage(await self._shelf.read(request, read))
        return self._site.pages.answer(request, "gallery_piece.html", page)

    async def bar(self, request: Request) -> Response:
        """How much there is, and the way to any place of it. Asked for after the page: shards are listed."""
        taken, place = filter_of(request), place_in(request.query_params)

        def read(output: GalleryOutput) -> _BarPage:
            live, base = self._shelf.is_live(output), base_of(request)
            extent = output.extent(reported=not live)
            return _BarPage(base=base, live=live, extent=extent, place=place, filter=taken)

        page = await self._shelf.read(request, read)
        return self._site.pages.answer(request, "gallery_bar.html", page)

    async def new(self, request: Request) -> Response:
        """How many pictures came since the page was made."""
        seen = number_in(request.query_params, "seen")

        def read(output: GalleryOutput) -> _NewPage:
            if absence := output.absence():
                raise HTTPException(502, absence)
            live = self._shelf.is_live(output)
            extent = output.extent(reported=not live)
            return _NewPage(base=base_of(request), live=live, extent=extent, seen=seen)

        page = await self._shelf.read(request, read)
        return self._site.pages.answer(request, "gallery_new.html", page)

    def _shown(self, request: Request, output: GalleryOutput, taken: Filter, *, live: bool) -> _Shown:
        """What a piece of the gallery is made of. `live`: whether a job renders into the output."""
        place, late = place_in(request.query_params), places_in(request.query_params, "late")
        tail = request.query_params.get("tail") == "1"
        came = [*output.late(late, afresh=not live)] if tail and taken.is_empty else []
        backwards = request.query_params.get("before") == "1"
        if backwards:
            piece = output.before(place, taken, budget=BUDGET)
            earlier = piece.next
            place = piece.lines[0].place if piece.lines else place
        else:
            piece = output.page(place, taken, count_in(request.query_params), BUDGET)
            earlier = place if place > START else None
        troubles = [trouble for one in (*(one for _, one in came), piece) for trouble in one.troubles]
        shown = [one.lines for _, one in came if one.lines] + _without_gaps(piece)
        nothing = not (piece.next or shown or troubles)
        absence = output.absence() if nothing else ""
        extent = output.extent() if not (taken.is_empty or piece.complete) else None
        base, query = base_of(request), taken.query()

        def address(at: Cursor, **more: str) -> str:
            given = {"shard": str(at.shard), "position": str(at.position), **query, **more}
            return f"{base}/page?{urlencode(given)}"

        def section(lines: Sequence[Line]) -> _Section:
            more = {"count": str(len(lines))} if len(lines) < PAGE else {}
            return _Section(lines, address(lines[0].place, **more))

        # Shards are finished in any order: those that others overtook appear behind them.
        done = {at for at, _ in came}
        waiting = [at for at in late if at not in done]
        waiting += [one.next for _, one in came if one.next is not None]
        reached = piece.next or (piece.lines[-1].place if piece.lines else START)
        waiting += [Cursor(shard, 0) for shard in piece.missing if shard < reached.shard]
        remembered = {"late": written(waiting)} if waiting and live else {}
        if absence:
            remembered["absent"] = "1"
        # A search may take many pieces: the last one says whether any of them found something.
        before = request.query_params.get("found")
        found = "1" if piece.lines or before == "1" else "0" if place == START or before == "0" else ""
        if not taken.is_empty and found:
            remembered["found"] = found
        return _Shown(
            base=base,
            filter=taken,
            query=f"&{urlencode(query)}" if query else "",
            asks=f"?{urlencode(query)}" if query else "",
            live=live,
            place=place,
            piece=piece,
            sections=[section(lines) for lines in shown],
            found=found,
            troubles=troubles,
            all_failed=nothing and place == START and output.shards.following(0) is not None,
            absence=absence,
            was_absent=request.query_params.get("absent") == "1",
            backwards=backwards,
            further=None if piece.next is None or backwards else address(piece.next, **remembered),
            tail=address(piece.lines[-1].place.next if piece.lines else place, tail="1", **remembered),
            earlier=None if earlier is None else address(earlier, before="1"),
            extent=extent,
            searched=None if extent is None else _searched(extent, output, piece, backwards=backwards),
        )


def _without_gaps(piece: Piece) -> list[Sequence[Line]]:
    """The images of a piece in parts in which no shard is missing: each is found again by its first place."""
    parts: list[list[Line]] = []
    for line in piece.lines:
        before = parts[-1][-1].place.shard if parts else line.place.shard
        if not parts or any(before < shard < line.place.shard for shard in piece.missing):
            parts.append([])
        parts[-1].append(line)
    return [*parts]


def _searched(extent: Extent, output: GalleryOutput, piece: Piece, *, backwards: bool) -> int:
    """About how many images a search has looked at, from the beginning or from the end of the output."""
    if piece.next is None or not extent.shards:
        return extent.images or 0
    before = output.shards.ordinal(piece.next.shard)
    looked = extent.shards - before if backwards else before
    return round((extent.images or 0) * looked / extent.shards)
