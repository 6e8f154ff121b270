"""The page of one picture, with those before it and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jobs.errors import ManifestError, OutputError
from jobs.output.metadata import Failure
from producer.serve.gallery.address import base_of, check, filter_of, place_in, place_of
from producer.serve.gallery.filter import Filter
from producer.serve.gallery.gallery_output import BUDGET, PAGE, GalleryOutput
from producer.serve.gallery.line import Cursor
from producer.serve.gallery.picture_facts import (
    Facts,
    command_of,
    facts_of,
    facts_of_failure,
    manifest_of,
    slots_of,
)
from producer.serve.gallery.shelf import Shelf
from producer.serve.site import Site

Way = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class _Neighbour:
    """What leads to the image before another one, or after it."""

    way: Way
    page: str | None
    """The address of its page."""
    further: str | None
    """Where to look on for it; None where there is none, or it was found."""


@dataclass(frozen=True, slots=True)
class _NeighbourPage:
    """A neighbour alone."""

    found: _Neighbour


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What the page of an image shows."""

    base: str
    """The address of the output."""
    label: str
    """What the output is called."""
    folder: str
    """Where a command that renders it again is run: the output's; empty for one in a bucket."""
    place: Cursor
    filter: Filter
    up: str
    """The address of the gallery's page that it is on."""
    before: _Neighbour
    after: _Neighbour
    record: Mapping[str, Any] | None = None
    """What is known of a picture; None of what failed."""
    failure: Failure | None = None
    text: str = ""
    """The prompt."""
    trouble: str = ""
    """What is wrong with the picture's file."""
    facts: Sequence[Facts] = ()
    command: str = ""
    manifest: str = ""
    slots: int | None = None
    """Slots of the forwards that the picture's bytes follow from, which no manifest says."""
    cannot: str = ""
    """Why there is no command and no manifest."""
    job: str | None = None
    """The job that rendered it, if the ledger has it."""


class PicturePage:
    """Answers for one image of an output."""

    def __init__(self, site: Site, shelf: Shelf) -> None:
        self._site, self._shelf = site, shelf

    async def picture(self, request: Request) -> Response:
        """One image with all its settings, or why it failed; its neighbours are those that a filter takes."""
        place, taken = place_of(request), filter_of(request)

        def read(output: GalleryOutput) -> _Shown:
            record, trouble = _record(output, place)
            failure = None if record is not None else output.failure(place)
            if record is None and failure is None:
                raise HTTPException(404, output.absence() or "there is no such picture in this output")
            check(output, taken)
            base = base_of(request)
            shown = _Shown(
                base=base,
                label=output.output.label,
                folder="" if output.output.in_bucket else output.output.label,
                place=place,
                filter=taken,
                up=_up(base, place, taken),
                before=_neighbour(request, output, "before", place, taken),
                after=_neighbour(request, output, "after", place.next, taken),
            )
            if record is not None:
                return self._of_picture(replace(shown, trouble=trouble), output, record)
            assert failure is not None
            return replace(
                shown,
                failure=failure,
                text=failure.entry.request.prompt,
                facts=facts_of_failure(failure),
                command=failure.command,
                job=self._shelf.known_job(failure.job_id),
            )

        shown = await self._shelf.read(request, read)
        return self._site.pages.answer(request, "picture.html", shown)

    def _of_picture(self, shown: _Shown, output: GalleryOutput, record: Mapping[str, Any]) -> _Shown:
        """The page with all that a picture's record says."""
        shown = replace(
            shown,
            record=record,
            text=record.get("text", ""),
            facts=facts_of(record),
            slots=slots_of(record),
            job=self._shelf.known_job(record.get("job_id")),
        )
        stored = output.stored_name(shown.place, record["file_name"])
        try:
            manifest = manifest_of(record, output.output, stored)
            command = command_of(record, output.output, stored if output.in_folder(shown.place) else None)
        except ManifestError as error:
            return replace(shown, cannot=str(error))
        return replace(shown, manifest=manifest, command=command)

    async def neighbour(self, request: Request) -> Response:
        """The link to the image that comes before a place or after it, where its picture's page found none in
        time; it is asked for until one is found."""
        place, taken = place_in(request.query_params), filter_of(request)
        way: Way = "before" if request.query_params.get("way") == "before" else "after"

        def read(output: GalleryOutput) -> _Neighbour:
            check(output, taken)
            return _neighbour(request, output, way, place, taken)

        page = _NeighbourPage(await self._shelf.read(request, read))
        return self._site.pages.answer(request, "gallery_neighbour.html", page)


def _record(output: GalleryOutput, place: Cursor) -> tuple[Mapping[str, Any] | None, str]:
    """The record of the picture there, if there is one, and what is wrong with its file; empty as a rule."""
    try:
        found = output.picture(place)
    except OutputError as error:
        return output.record(place), str(error)
    return (None, "") if found is None else (found[1], "")


def _neighbour(request: Request, output: GalleryOutput, way: Way, place: Cursor, taken: Filter) -> _Neighbour:
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
    return _Neighbour(way, page, further)


def _up(base: str, place: Cursor, taken: Filter) -> str:
    """The page of the gallery on which the picture is, with the filter that led to it."""
    first = place.position // PAGE * PAGE
    asked = urlencode({"shard": place.shard, "position": first, **taken.query()})
    return f"{base}?{asked}#i{place.shard}-{place.position}"
