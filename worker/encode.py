"""Pixels to the bytes of an image file that says how it was made, and back to the request.

A file does not say when, where or by whom it was made: equal pixels and requests give equal bytes.
PNG: text chunks `parameters` (A1111's form) and `imagemill` (the request as JSON). JPEG and WebP: the first
as EXIF UserComment, the second in XMP, property `imagemill:request`.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jobs.errors import OutputError, RenderError
from jobs.output.metadata import parameters_text
from jobs.output.picture_file import PNG_TEXT, XMP_NAMESPACE, read_picture
from jobs.request import ImageRequest

Pixels = npt.NDArray[np.uint8]

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""A file's ending by `image_format`; .jpg because some readers take no .jpeg."""

_EXIF_IFD = 0x8769
_USER_COMMENT = 0x9286
_JPEG_SEGMENT = 65_533
_NAME_ANOTHER = "name a file that imagemill wrote and that no other program has saved since"


def encode(pixels: Pixels, request: ImageRequest) -> bytes:
    """The image file of `pixels` ([H, W, 3]) in the request's format.

    Raises RenderError when the prompts are too long for the places a JPEG has for them.
    """
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if request.image_format == "png":
        text = PngInfo()
        text.add_text("parameters", parameters_text(request))
        text.add_text(PNG_TEXT, request.to_json())
        # zlib's RLE strategy: as small as the default on pictures of this kind, four times as fast.
        image.save(buffer, "PNG", pnginfo=text, compress_type=zlib.Z_RLE)
        return buffer.getvalue()
    exif, xmp = _exif(request), _xmp(request)
    if request.image_format == "jpeg":
        if max(len(exif), len(xmp) + 29) > _JPEG_SEGMENT:
            raise RenderError(
                f"the prompts of {request.image_id} are too long to stand in a JPEG file "
                f"({max(len(exif), len(xmp))} bytes, at most {_JPEG_SEGMENT}): "
                "shorten them, or use image format png or webp"
            )
        # Full-resolution chroma: 4:2:0 would smear coloured edges at any quality.
        image.save(buffer, "JPEG", quality=request.image_quality, subsampling=0, exif=exif, xmp=xmp)
    elif request.image_quality == 100:
        # In lossless WebP `quality` is effort: 0 is several times as fast as PNG and still smaller.
        image.save(buffer, "WEBP", lossless=True, quality=0, method=0, exif=exif, xmp=xmp)
    else:
        image.save(buffer, "WEBP", quality=request.image_quality, method=4, exif=exif, xmp=xmp)
    return buffer.getvalue()


def read_request(path: Path) -> ImageRequest:
    """The request that made the image file.

    Raises OutputError when the file is no image or holds no request.
    """
    try:
        request = read_picture(path.read_bytes()).request
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise OutputError(f"{path}: {error}: {_NAME_ANOTHER}") from None
    if request is None:
        raise OutputError(f"{path}: holds no imagemill request: {_NAME_ANOTHER}")
    return request


def is_flat(pixels: Pixels) -> bool:
    """Whether the picture is one flat colour."""
    return bool((pixels == pixels[0, 0]).all())


def _exif(request: ImageRequest) -> bytes:
    exif = Image.Exif()
    # EXIF's own mark for Unicode; readers of A1111's text take what follows as big-endian UTF-16.
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + parameters_text(request).encode("utf-16-be")
    return exif.tobytes()


def _xmp(request: ImageRequest) -> bytes:
    # JSON has escaped the control characters already; these two are the others that XML cannot hold.
    text = request.to_json().replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:imagemill="{XMP_NAMESPACE}" '
        f"imagemill:request={quoteattr(text)}/>"
        "</rdf:RDF></x:xmpmeta>"
    ).encode()
