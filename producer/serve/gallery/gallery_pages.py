"""The pages of an output: its pictures, piece by piece.

No address holds a path: an output is its key, a picture is its shard and its place in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

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
from producer.serve.site import Site

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


class _GalleryPages:
    def __init__(self, site: Site, shelf: Shelf) -> None:
        self._site, self._shelf = site, shelf

    async def gallery(self, request: Request) -> Response:
        """The first page from a place on, with all around it; what is wrong with a filter under its form."""

        def read(output: GalleryOutput) -> dict[str, Any]:
            live = self._shelf.is_live(output)
            shown = {"label": output.output.label, "job": self._shelf.job_of(output)}
            try:
                taken = asked_of(request)
                notice = output.known.check(taken)
            except WrongFilter as error:
                return self._nothing(request) | shown | {"wrong": str(error)}
            return self._piece(request, output, taken, live=live) | shown | {"notice": notice}

        context = await self._shelf.read(request, read)
        context |= {"asked": {name: request.query_params.get(name, "") for name in FIELDS}}
        status = 400 if context["wrong"] else 200
        return self._site.pages.answer(request, "gallery.html", context, status=status)

    async def piece(self, request: Request) -> Response:
        """Further images, alone; at the end of a page that follows a job, with how much there is by now."""
        taken, asks_again = filter_of(request), request.query_params.get("tail") == "1"

        def read(output: GalleryOutput) -> dict[str, Any]:
            check(output, taken)
            # Asked first: what is not there once no job renders does not come any more.
            live = self._shelf.is_live(output)
            context = self._piece(request, output, taken, live=live)
            if asks_again and context["further"] is None and taken.is_empty:
                # Also where nothing came: the shards may have been listed before the last ones were shown.
                context["reached"] = output.extent(reported=not live)
            return context

        context = await self._shelf.read(request, read)
        if not context["backwards"]:
            context["earlier"] = None  # the page that this piece is added to has them, or the way to them
        return self._site.pages.answer(request, "gallery_piece.html", context)

    async def bar(self, request: Request) -> Response:
        """How much there is, and the way to any place of it. Asked for after the page: shards are listed."""
        taken, place = filter_of(request), place_in(request.query_params)
        context = await self._shelf.read(request, self._how_much)
        context |= {"base": base_of(request), "place": place, "filter": taken, "every": LOOK_SECONDS}
        return self._site.pages.answer(request, "gallery_bar.html", context)

    async def new(self, request: Request) -> Response:
        """How many pictures came since the page was made."""
        seen = number_in(request.query_params, "seen")
        context = await self._shelf.read(request, self._how_much)
        context |= {"base": base_of(request), "seen": seen, "every": LOOK_SECONDS}
        return self._site.pages.answer(request, "gallery_new.html", context)

    def _how_much(self, output: GalleryOutput) -> dict[str, Any]:
        live = self._shelf.is_live(output)
        return {"extent": output.extent(reported=not live), "live": live}

    def _piece(self, request: Request, output: GalleryOutput, taken: Filter, *, live: bool) -> dict[str, Any]:
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
        if piece.next is None and not (piece.lines or troubles or tail) and place == START:
            troubles += filter(None, [output.absence()])
        extent = output.extent() if not (taken.is_empty or piece.complete) else None
        base, query = base_of(request), taken.query()

        def address(at: Cursor, **more: str) -> str:
            given = {"shard": str(at.shard), "position": str(at.position), **query, **more}
            return f"{base}/page?{urlencode(given)}"

        def section(lines: Sequence[Line]) -> dict[str, Any]:
            more = {"count": str(len(lines))} if len(lines) < PAGE else {}
            return {"lines": lines, "here": address(lines[0].place, **more)}

        # Shards are finished in any order: those that others overtook appear behind them.
        done = {at for at, _ in came}
        waiting = [at for at in late if at not in done]
        waiting += [one.next for _, one in came if one.next is not None]
        reached = piece.next or (piece.lines[-1].place if piece.lines else START)
        waiting += [Cursor(shard, 0) for shard in piece.missing if shard < reached.shard]
        remembered = {"late": written(waiting)} if waiting and live else {}
        # A search may take many pieces: the last one says whether any of them found something.
        before = request.query_params.get("found")
        found = "1" if piece.lines or before == "1" else "0" if place == START or before == "0" else ""
        if not taken.is_empty and found:
            remembered["found"] = found
        shown = [one.lines for _, one in came if one.lines] + _without_gaps(piece)
        return {
            "base": base,
            "live": live,
            "place": place,
            "piece": piece,
            "found": found,
            "sections": [section(lines) for lines in shown],
            "troubles": troubles,
            "backwards": backwards,
            "filter": taken,
            "wrong": "",
            "notice": "",
            "query": f"&{urlencode(query)}" if query else "",
            "asks": f"?{urlencode(query)}" if query else "",
            "further": None if piece.next is None or backwards else address(piece.next, **remembered),
            "tail": address(piece.lines[-1].place.next if piece.lines else place, tail="1", **remembered),
            "earlier": None if earlier is None else address(earlier, before="1"),
            "searched": None if extent is None else _searched(extent, output, piece, backwards=backwards),
            "extent": extent,
            "reached": None,
            "every": LOOK_SECONDS,
        }

    def _nothing(self, request: Request) -> dict[str, Any]:
        """The same of no image."""
        return {
            "base": base_of(request), "place": START, "piece": Piece((), None, complete=True), "found": "0",
            "backwards": False, "filter": Filter(), "notice": "", "query": "", "asks": "", "live": False,
            "sections": (), "troubles": (), "further": None, "tail": "", "earlier": None, "searched": None,
            "extent": None, "reached": None, "every": LOOK_SECONDS,
        }  # fmt: skip


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
