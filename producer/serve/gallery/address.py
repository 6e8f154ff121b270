"""Addresses of an output's pages, read as what they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from jobs.output.shard_names import SHARD_LIMIT
from producer.serve.gallery.filter import FIELDS, Filter, WrongFilter
from producer.serve.gallery.gallery_output import PAGE, GalleryOutput
from producer.serve.gallery.line import Cursor

_MOST_SHARDS: Final = 10**7
_MOST_PLACES: Final = 200


def place_in(given: Mapping[str, str]) -> Cursor:
    """The place in an output that an address names: by two numbers; its beginning without any.

    Raises HTTPException for anything else.
    """
    return Cursor(_number(given, "shard", _MOST_SHARDS), _number(given, "position", SHARD_LIMIT))


def place_of(request: Request) -> Cursor:
    """The same, of an address that is one picture's."""
    return place_in(request.path_params)


def count_in(given: Mapping[str, str]) -> int:
    """How many images an address asks for."""
    return max(1, _number(given, "count", PAGE + 1)) if "count" in given else PAGE


def places_in(given: Mapping[str, str], name: str) -> list[Cursor]:
    """Places in an output, as `written` writes them; none for anything else. Raises HTTPException for numbers
    that are too large."""
    found = re.findall(r"(\d{1,8})\.(\d{1,5})", given.get(name, ""), re.ASCII)[:_MOST_PLACES]
    return [place_in({"shard": shard, "position": position}) for shard, position in found]


def written(places: Iterable[Cursor]) -> str:
    """Places as an address has them."""
    return "_".join(f"{place.shard}.{place.position}" for place in [*places][-_MOST_PLACES:])


def number_in(given: Mapping[str, str], name: str) -> int:
    """A number that an address names, from 0; 0 without it."""
    return _number(given, name, 10**12)


def _number(given: Mapping[str, str], name: str, limit: int) -> int:
    text = given.get(name, "0") or "0"
    if not (text.isascii() and text.isdecimal() and len(text) <= 12) or int(text) >= limit:
        raise HTTPException(404, f"{name}: is a whole number from 0 to {limit - 1:,}")
    return int(text)


def check(output: GalleryOutput, taken: Filter) -> None:
    """Raises HTTPException for a filter that nothing of the output could meet."""
    try:
        output.known.check(taken)
    except WrongFilter as error:
        raise HTTPException(400, str(error)) from None


def filter_of(request: Request) -> Filter:
    """The filter of an address. Raises HTTPException."""
    try:
        return asked_of(request)
    except WrongFilter as error:
        raise HTTPException(400, str(error)) from None


def asked_of(request: Request) -> Filter:
    """The filter of an address. Raises WrongFilter."""
    given = [name for name, _ in request.query_params.multi_items()]
    twice = next((name for name in FIELDS if given.count(name) > 1), None)
    if twice is not None:
        raise WrongFilter(f"{twice}: is given twice: one condition of each kind is taken")
    return Filter.of_query(request.query_params)


def base_of(request: Request) -> str:
    """The address of the output; the key is one that was found."""
    return f"/outputs/{request.path_params['key'][:16]}"
