"""The page of one picture, with those before it and after it."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jobs.errors import ManifestError, OutputError
from jobs.output.store import Unreachable
from producer.serve.gallery.address import base_of, check, filter_of, place_in, place_of
from producer.serve.gallery.filter import Filter
from producer.serve.gallery.gallery_output import BUDGET, PAGE, GalleryOutput
from producer.serve.gallery.line import Cursor
from producer.serve.gallery.picture_facts import command_of, facts_of, facts_of_failure, manifest_of
from producer.serve.gallery.shelf import Shelf
from producer.serve.site import Site

Way = Literal["before", "after"]


class PicturePage:
    """Answers for one image of an output."""

    def __init__(self, site: Site, shelf: Shelf) -> None:
        self._site, self._shelf = site, shelf

    async def picture(self, request: Request) -> Response:
        """One image with all its settings, or why it failed; its neighbours are those that a filter takes."""
        place, taken = place_of(request), filter_of(request)

        def read(output: GalleryOutput) -> dict[str, Any]:
            record = output.record(place)
            failure = None if record is not None else output.failure(place)
            if record is None and failure is None:
                raise HTTPException(404, output.absence() or "there is no such picture in this output")
            check(output, taken)
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
                    "record": None, "cannot": "", "trouble": "", "job": self._shelf.known_job(failure.job_id),
                }  # fmt: skip
            stored = output.stored_name(place, record["file_name"])
            try:
                cannot, manifest = "", manifest_of(record, output.output, stored)
                command = command_of(record, output.output, stored if output.in_folder(place) else None)
            except ManifestError as error:
                cannot, manifest, command = str(error), "", ""
            return context | {
                "facts": facts_of(record), "command": command, "manifest": manifest, "record": record,
                "text": record.get("text", ""), "cannot": cannot, "trouble": _trouble(output, place),
                "job": self._shelf.known_job(record.get("job_id")),
            }  # fmt: skip

        context = await self._shelf.read(request, read)
        base = base_of(request)
        context |= {"place": place, "base": base, "up": _up(base, place, taken), "filter": taken}
        return self._site.pages.answer(request, "picture.html", context)

    async def neighbour(self, request: Request) -> Response:
        """The link to the image that comes before a place or after it, where its picture's page found none in
        time; it is asked for until one is found."""
        place, taken = place_in(request.query_params), filter_of(request)
        way: Way = "before" if request.query_params.get("way") == "before" else "after"

        def read(output: GalleryOutput) -> dict[str, Any]:
            check(output, taken)
            return _neighbour(request, output, way, place, taken)

        context = {"found": await self._shelf.read(request, read)}
        return self._site.pages.answer(request, "gallery_neighbour.html", context)


def _trouble(output: GalleryOutput, place: Cursor) -> str:
    """What is wrong with the file of a picture that has a record; empty as a rule."""
    try:
        return "" if output.picture(place) else "there is no such file"
    except Unreachable:
        raise
    except OutputError as error:
        return str(error)


def _neighbour(
    request: Request, output: GalleryOutput, way: Way, place: Cursor, taken: Filter
) -> dict[str, Any]:
    """What leads to the last image before a place, or the first from it on: its page, or where to look on."""
    if way == "before":
        piece = output.before(place, taken, count=1, budget=BUDGET / 2)
    else:
        piece = output.page(place, taken, count=1, budget=BUDGET / 2)
    base, query = base_of(request), taken.query()
    asks = f"?{urlencode(query)}" if query else ""
    page = further = None
    if piece.lines:
        there = piece.lines[0].place
        page = f"{base}/{there.shard}/{there.position}{asks}"
    elif piece.next is not None:
        at = {"shard": str(piece.next.shard), "position": str(piece.next.position), **query}
        further = f"{base}/neighbour?{urlencode({'way': way, **at})}"
    return {"way": way, "page": page, "further": further}


def _up(base: str, place: Cursor, taken: Filter) -> str:
    """The page of the gallery on which the picture is, with the filter that led to it."""
    first = place.position // PAGE * PAGE
    asked = urlencode({"shard": place.shard, "position": first, **taken.query()})
    return f"{base}?{asked}#i{place.shard}-{place.position}"
