"""The files of pictures, whole and small, for a browser's own keeping."""

from __future__ import annotations

import re
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobs.errors import OutputError
from producer.serve.gallery.address import place_of
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.shelf import Shelf
from producer.serve.gallery.thumbnails import PLACEHOLDER, SIDE, Thumbnail, Thumbnails, media_type

_IMAGE_ID: Final = re.compile("[0-9a-f]{16}")
_KEPT: Final = "private, max-age=604800, immutable"
"""Of an address with an image_id, where that picture lies there."""
_ASKED_AGAIN: Final = "private, no-cache"
_SUFFIXES: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}


def file_routes(shelf: Shelf) -> list[Route]:
    """The addresses of pictures' files."""
    thumbnails = Thumbnails()

    async def small(request: Request) -> Response:
        place, version = place_of(request), _version(request)
        tag = f'"{version}-{SIDE}"'
        if version and _held(request, tag):
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": _KEPT})

        def read(output: GalleryOutput) -> tuple[Thumbnail, bool]:
            """The thumbnail, and whether it is the picture that the address says."""
            key = (output.output.label, place, version)
            held = thumbnails.held(key)
            if held is not None:
                return held, True
            try:
                found = output.picture(place)
            except (OutputError, OSError):
                found = None  # its page says what is wrong
            if found is None:
                return PLACEHOLDER, False
            data, record = found
            # Another one lies there where the output was removed and rendered again.
            is_it = version == record["image_id"]
            made = thumbnails.draw(data, key if is_it else None)
            kept = is_it and not made.damaged
            return made, kept

        made, kept = await shelf.read(request, read)
        headers = {"ETag": tag, "Cache-Control": _KEPT} if kept else {}
        return Response(made.data, media_type=made.media_type, headers=headers)

    async def whole(request: Request) -> Response:
        place = place_of(request)

        def read(output: GalleryOutput) -> tuple[bytes, str, str]:
            """The picture, its name without suffix, and the tag of its bytes."""
            found = output.picture(place)
            if found is None:
                raise HTTPException(404, output.absence() or "there is no such picture in this output")
            data, record = found
            return data, output.output.names.key(*place), f'"{record["sha256"]}"'

        data, key, tag = await shelf.read(request, read)
        headers = {"ETag": tag, "Cache-Control": _ASKED_AGAIN}
        if _held(request, tag):
            return Response(status_code=304, headers=headers)
        kind = media_type(data)
        if kind not in _SUFFIXES:
            return Response(PLACEHOLDER.data, media_type=PLACEHOLDER.media_type)
        named = f'inline; filename="{key}.{_SUFFIXES[kind]}"'
        return Response(data, media_type=kind, headers={"Content-Disposition": named, **headers})

    return [
        Route("/outputs/{key}/{shard}/{position}/small", small),
        Route("/outputs/{key}/{shard}/{position}/file", whole),
    ]


def _held(request: Request, tag: str) -> bool:
    """Whether a browser says that it has what this tag names (RFC 9110, 13.1.2). A proxy that compresses
    makes a tag weak."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in given.split(","))


def _version(request: Request) -> str:
    """The image_id that an address says; empty where it says none."""
    given = request.query_params.get("v", "")
    return given if _IMAGE_ID.fullmatch(given) else ""
