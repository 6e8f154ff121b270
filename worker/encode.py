"""Pixels to the bytes of an image file that says how it was made, and back to the request.

A file does not say when, where or by whom it was made: equal pixels and requests give equal bytes.
PNG: text chunks `parameters` (A1111's form) and `imagemill` (the request as JSON). JPEG and WebP: the first
as EXIF UserComment, the second in XMP. XMP says of each that an algorithm made it (`jobs.output.xmp`).
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jobs.errors import OutputError, RenderError
from jobs.output.jpeg_text import jpeg_trouble
from jobs.output.metadata import parameters_text
from jobs.output.picture_file import PNG_TEXT, PNG_XMP, PictureFile, read_picture
from jobs.output.xmp import write_packet
from jobs.plain_file import read_plain
from jobs.request import ImageRequest

Pixels = npt.NDArray[np.uint8]

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""A file's ending by `image_format`; .jpg because some readers take no .jpeg."""

_EXIF_IFD = 0x8769
_USER_COMMENT = 0x9286
_NAME_ANOTHER = "name a file that imagemill wrote and that no other program has saved since"


def encode(pixels: Pixels, request: ImageRequest, *, says_source: bool = True) -> bytes:
    """The image file of `pixels` ([H, W, 3]) in the request's format.

    `says_source`: whether it says that an algorithm made it; early versions wrote files that do not.
    Raises RenderError when the prompts are too long for the places a JPEG has for them.
    """
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if request.image_format == "png":
        text = PngInfo()
        text.add_text("parameters", parameters_text(request))
        text.add_text(PNG_TEXT, request.to_json())
        if says_source:
            text.add_itxt(PNG_XMP, write_packet(None).decode())
        # zlib's RLE strategy: as small as the default on pictures of this kind, four times as fast.
        image.save(buffer, "PNG", pnginfo=text, compress_type=zlib.Z_RLE)
        return buffer.getvalue()
    exif, xmp = _exif(request), write_packet(request, says_source=says_source)
    if request.image_format == "jpeg":
        trouble = jpeg_trouble(request, says_source=says_source)
        if trouble is not None:
            raise RenderError(f"{request.image_id}: {trouble}")
        # Full-resolution chroma: 4:2:0 would smear coloured edges at any quality.
        image.save(buffer, "JPEG", quality=request.image_quality, subsampling=0, exif=exif, xmp=xmp)
    elif request.image_quality == 100:
        # In lossless WebP `quality` is effort: 0 is several times as fast as PNG and still smaller.
        image.save(buffer, "WEBP", lossless=True, quality=0, method=0, exif=exif, xmp=xmp)
    else:
        image.save(buffer, "WEBP", quality=request.image_quality, method=4, exif=exif, xmp=xmp)
    return buffer.getvalue()


def read_request(path: Path) -> ImageRequest:
    """The request that made the image file. Raises OutputError when it is no image or holds no request."""
    return read_file(path)[1]


def read_file(path: Path) -> tuple[PictureFile, ImageRequest]:
    """What the image file says of itself, and the request that made it. Raises as `read_request`."""
    try:
        picture = read_picture(read_plain(path))
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise OutputError(f"{path}: {error}: {_NAME_ANOTHER}") from None
    if picture.request is None:
        raise OutputError(f"{path}: holds no imagemill request: {_NAME_ANOTHER}")
    return picture, picture.request


def is_flat(pixels: Pixels) -> bool:
    """Whether the picture is one flat colour."""
    return bool((pixels == pixels[0, 0]).all())


def _exif(request: ImageRequest) -> bytes:
    exif = Image.Exif()
    # EXIF's own mark for Unicode; readers of A1111's text take what follows as big-endian UTF-16.
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + parameters_text(request).encode("utf-16-be")
    return exif.tobytes()
