"""The files of pictures, whole and small, for a browser's own keeping."""

from __future__ import annotations

import re
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobs.errors import OutputError
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.shelf import Shelf, place_of
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
        if version and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": _KEPT})

        def read(output: GalleryOutput) -> tuple[Thumbnail, bool]:
            """The thumbnail, and whether it is the picture that the address says."""
            key = (output.output.label, place, version)
            held = thumbnails.held(key)
            if held is not None:
                return held, True
            try:
                found = output.identified(place)
            except (OutputError, OSError):
                found = None  # its page says what is wrong
            if found is None:
                return PLACEHOLDER, False
            data, image_id = found
            # Another one lies there where the output was removed and rendered again.
            made = thumbnails.draw(data, key if version == image_id else None)
            kept = version == image_id and not made.damaged
            return made, kept

        made, kept = await shelf.read(request, read)
        headers = {"ETag": tag, "Cache-Control": _KEPT} if kept else {}
        return Response(made.data, media_type=made.media_type, headers=headers)

    async def whole(request: Request) -> Response:
        place = place_of(request)

        def read(output: GalleryOutput) -> tuple[bytes | None, str]:
            return output.picture(place), output.output.names.key(*place)

        data, key = await shelf.read(request, read)
        if data is None:
            raise HTTPException(404, "there is no such picture in this output")
        kind = media_type(data)
        if kind not in _SUFFIXES:
            return Response(PLACEHOLDER.data, media_type=PLACEHOLDER.media_type)
        named = f'inline; filename="{key}.{_SUFFIXES[kind]}"'
        return Response(
            data, media_type=kind, headers={"Content-Disposition": named, "Cache-Control": _ASKED_AGAIN}
        )

    return [
        Route("/outputs/{key}/{shard}/{position}/small", small),
        Route("/outputs/{key}/{shard}/{position}/file", whole),
    ]


def _version(request: Request) -> str:
    """The image_id that an address says; empty where it says none."""
    given = request.query_params.get("v", "")
    return given if _IMAGE_ID.fullmatch(given) else ""
