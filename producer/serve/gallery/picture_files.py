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
"""An address with an image_id always gives the same picture."""
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

        def read(output: GalleryOutput) -> Thumbnail:
            # Without the image_id nothing tells whether the picture is still the same.
            key = (output.output.label, place, version) if version else None
            try:
                return thumbnails.get(key, lambda: output.picture(place))
            except (OutputError, OSError):
                return PLACEHOLDER  # its page says what is wrong

        made = await shelf.read(request, read)
        if made.damaged or not version:
            return Response(made.data, media_type=made.media_type)
        return Response(made.data, media_type=made.media_type, headers={"ETag": tag, "Cache-Control": _KEPT})

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
