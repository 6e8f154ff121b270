"""Grey pictures of more than 8 bits: which of their numbers is white, and their shades with 8 bits."""

from __future__ import annotations

from typing import Any, Final

from PIL import Image

from jobs.errors import InputError

DEEP: Final = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes of them."""
_BITS: Final = 258
_PHOTOMETRIC: Final = 262
"""Tags of TIFF."""
_WHITE_IS_ZERO: Final = 0


def check_deep(picture: Image.Image) -> None:
    """Raises InputError where it is not known which number is white. Decodes those of decimal numbers."""
    most = _white(picture)
    if picture.mode == "F":
        _numbers(picture, most)


def shades(picture: Image.Image, *, black: bool) -> Image.Image:
    """The picture with 8 bits, what is transparent on white or black. Raises InputError as `check_deep`, and
    what Pillow raises for a broken one.

    Pillow itself would clip numbers to 255.
    """
    import numpy as np

    most = _white(picture)
    clear, exif = picture.info.get("transparency"), picture.getexif()
    values = _numbers(picture, most)
    grey = np.floor(values.astype(np.float32) * (255.0 / most) + 0.5).astype(np.uint8)
    if _tag(picture, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    if clear is not None:
        grey[values == clear] = 0 if black else 255
    scaled = Image.fromarray(grey)
    scaled.info["exif"] = exif.tobytes() if exif else b""
    return scaled


def _white(picture: Image.Image) -> float:
    """The number that is white. Raises InputError where none is."""
    if picture.mode == "F":
        return 1.0
    if picture.mode != "I":
        bits = _tag(picture, _BITS)
        return float((1 << (16 if bits is None else bits)) - 1)
    if picture.format in ("PPM", "PNG"):
        return 65535.0
    raise InputError(
        "holds numbers of 32 bits or with a sign, of which none is white: save it with 8 or 16 bits a channel"
    )


def _tag(picture: Image.Image, number: int) -> int | None:
    """One number that a TIFF says of all its channels; None for other formats."""
    found = getattr(picture, "tag_v2", {}).get(number)
    found = found[0] if isinstance(found, tuple) else found
    return found if isinstance(found, int) else None


def _numbers(picture: Image.Image, most: float) -> Any:
    """The numbers of a picture [height, width]. Raises InputError for those that no shade of grey is."""
    import numpy as np

    values = np.asarray(picture)
    least, largest = float(values.min()), float(values.max())
    # NaN is neither.
    if not (least >= 0 and largest <= most):
        raise InputError(
            f"holds numbers from {least:g} to {largest:g}; white is {most:g}: scale them to 0 to {most:g}, "
            "or save it with 8 or 16 bits a channel"
        )
    return values
