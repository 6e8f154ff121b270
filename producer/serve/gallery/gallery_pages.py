"""The pages of an output: its pictures, one of them, and a sweep as a grid.

No address holds a path: an output is its key, a picture is its shard and its place in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobs.errors import ManifestError, OutputError
from producer.export.grid_layout import Axes
from producer.serve.gallery.filter import FIELDS, Filter, WrongFilter
from producer.serve.gallery.gallery_output import BUDGET, PAGE, Extent, GalleryOutput, Piece
from producer.serve.gallery.line import START, Cursor, Line
from producer.serve.gallery.picture_facts import command_of, facts_of, facts_of_failure, manifest_of
from producer.serve.gallery.picture_files import file_routes
from producer.serve.gallery.shelf import Shelf, count_in, number_in, place_in, place_of, places_in, written
from producer.serve.gallery.sweep import GridTable, Sweep, read_sweep
from producer.serve.site import Site

Way = Literal["before", "after"]
LOOK_SECONDS: Final = 3
"""Seconds from one look for new pictures to the next, while a job renders."""


def routes(site: Site) -> list[Route]:
    """The pages of outputs."""
    shelf = Shelf(site)
    pages = _GalleryPages(site, shelf)
    return [
        Route("/outputs/{key}", pages.gallery),
        Route("/outputs/{key}/page", pages.piece),
        Route("/outputs/{key}/bar", pages.bar),
        Route("/outputs/{key}/new", pages.new),
        Route("/outputs/{key}/grid", pages.grid),
        Route("/outputs/{key}/neighbour", pages.neighbour),
        Route("/outputs/{key}/{shard}/{position}", pages.picture),
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
                taken = _asked(request)
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
        taken, asks_again = _filter(request), request.query_params.get("tail") == "1"

        def read(output: GalleryOutput) -> dict[str, Any]:
            _check(output, taken)
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
        taken, place = _filter(request), place_in(request.query_params)

        def read(output: GalleryOutput) -> dict[str, Any]:
            live = self._shelf.is_live(output)
            return {"extent": output.extent(reported=not live), "live": live}

        context = await self._shelf.read(request, read)
        context |= {"base": _base(request), "place": place, "filter": taken, "every": LOOK_SECONDS}
        return self._site.pages.answer(request, "gallery_bar.html", context)

    async def new(self, request: Request) -> Response:
        """How many pictures came since the page was made."""
        seen = number_in(request.query_params, "seen")

        def read(output: GalleryOutput) -> dict[str, Any]:
            live = self._shelf.is_live(output)
            return {"extent": output.extent(reported=not live), "live": live}

        context = await self._shelf.read(request, read)
        context |= {"base": _base(request), "seen": seen, "every": LOOK_SECONDS}
        return self._site.pages.answer(request, "gallery_new.html", context)

    async def picture(self, request: Request) -> Response:
        """One image with all its settings, or why it failed; its neighbours are those that a filter takes."""
        place, taken = place_of(request), _filter(request)

        def read(output: GalleryOutput) -> dict[str, Any]:
            record = output.record(place)
            failure = None if record is not None else output.failure(place)
            if record is None and failure is None:
                raise HTTPException(404, output.absence() or "there is no such picture in this output")
            _check(output, taken)
            context: dict[str, Any] = {
                "label": output.output.label,
                "before": _neighbour(request, output, "before", place, taken),
                "after": _neighbour(request, output, "after", place.next, taken),
                "failure": failure,
            }
            if record is None:
                assert failure is not None
                facts, command = facts_of_failure(failure), failure.command
                return context | {
                    "facts": facts, "command": command, "manifest": "", "text": failure.entry.request.prompt,
                    "record": None, "cannot": "", "job": self._shelf.known_job(failure.job_id),
                }  # fmt: skip
            stored = output.stored_name(place, record["file_name"])
            try:
                cannot, manifest = "", manifest_of(record, output.output, stored)
                command = command_of(record, output.output, stored if output.in_folder(place) else None)
            except ManifestError as error:
                cannot, manifest, command = str(error), "", ""
            return context | {
                "facts": facts_of(record), "command": command, "manifest": manifest, "record": record,
                "text": record.get("text", ""), "cannot": cannot,
                "job": self._shelf.known_job(record.get("job_id")),
            }  # fmt: skip

        context = await self._shelf.read(request, read)
        base = _base(request)
        context |= {"place": place, "base": base, "up": _up(base, place, taken), "filter": taken}
        return self._site.pages.answer(request, "picture.html", context)

    async def neighbour(self, request: Request) -> Response:
        """The link to the image that comes before a place or after it, where its picture's page found none in
        time; it is asked for until one is found."""
        place, taken = place_in(request.query_params), _filter(request)
        way: Way = "before" if request.query_params.get("way") == "before" else "after"

        def read(output: GalleryOutput) -> dict[str, Any]:
            _check(output, taken)
            return _neighbour(request, output, way, place, taken)

        context = {"found": await self._shelf.read(request, read)}
        return self._site.pages.answer(request, "gallery_neighbour.html", context)

    async def grid(self, request: Request) -> Response:
        """Pictures along what was swept."""
        start, number = place_in(request.query_params), number_in(request.query_params, "page")
        asked = {name: request.query_params.get(name) for name in ("x", "y")}

        def read(output: GalleryOutput) -> dict[str, Any]:
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
            return {
                "label": output.output.label, "sweep": sweep, "axes": axes, "table": table, "count": count,
                "trouble": trouble, "live": self._shelf.is_live(output),
            }  # fmt: skip

        context = await self._shelf.read(request, read)
        context |= {"base": _base(request), "place": start, "number": number}
        return self._site.pages.answer(request, "gallery_grid.html", context)

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
        base, query = _base(request), taken.query()

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
            "base": _base(request), "place": START, "piece": Piece((), None, complete=True), "found": "0",
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


def _neighbour(
    request: Request, output: GalleryOutput, way: Way, place: Cursor, taken: Filter
) -> dict[str, Any]:
    """What leads to the last image before a place, or the first from it on: its page, or where to look on."""
    if way == "before":
        piece = output.before(place, taken, count=1, budget=BUDGET / 2)
    else:
        piece = output.page(place, taken, count=1, budget=BUDGET / 2)
    base, query = _base(request), taken.query()
    asks = f"?{urlencode(query)}" if query else ""
    page = further = None
    if piece.lines:
        there = piece.lines[0].place
        page = f"{base}/{there.shard}/{there.position}{asks}"
    elif piece.next is not None:
        at = {"shard": str(piece.next.shard), "position": str(piece.next.position), **query}
        further = f"{base}/neighbour?{urlencode({'way': way, **at})}"
    return {"way": way, "page": page, "further": further}


def _check(output: GalleryOutput, taken: Filter) -> None:
    try:
        output.known.check(taken)
    except WrongFilter as error:
        raise HTTPException(400, str(error)) from None


def _filter(request: Request) -> Filter:
    try:
        return _asked(request)
    except WrongFilter as error:
        raise HTTPException(400, str(error)) from None


def _asked(request: Request) -> Filter:
    """The filter of an address. Raises WrongFilter."""
    given = [name for name, _ in request.query_params.multi_items()]
    twice = next((name for name in FIELDS if given.count(name) > 1), None)
    if twice is not None:
        raise WrongFilter(f"{twice}: is given twice: one condition of each kind is taken")
    return Filter.of_query(request.query_params)


def _base(request: Request) -> str:
    """The address of the output; the key is one that was found."""
    return f"/outputs/{request.path_params['key'][:16]}"


def _up(base: str, place: Cursor, taken: Filter) -> str:
    """The page of the gallery on which the picture is, with the filter that led to it."""
    first = place.position // PAGE * PAGE
    asked = urlencode({"shard": place.shard, "position": first, **taken.query()})
    return f"{base}?{asked}#i{place.shard}-{place.position}"


def _searched(extent: Extent, output: GalleryOutput, piece: Piece, *, backwards: bool) -> int:
    """About how many images a search has looked at, from the beginning or from the end of the output."""
    if piece.next is None or not extent.shards:
        return extent.images or 0
    before = output.shards.ordinal(piece.next.shard)
    looked = extent.shards - before if backwards else before
    return round((extent.images or 0) * looked / extent.shards)


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
