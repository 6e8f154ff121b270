"""The pictures that a request names: what their files say beforehand, and their pixels for a pipeline.

Any format that Pillow reads. A picture is turned as its EXIF says, laid on white where it is transparent (a
mask on black), and fitted to the size that is painted. Of an animation the first frame counts.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Final

from PIL import Image, ImageOps, UnidentifiedImageError

from jobs.bounds import Fit
from jobs.errors import InputError
from jobs.inputs.deep_grey import DEEP, check_deep, shades
from jobs.inputs.inputs import MAX_PICTURE_BYTES
from jobs.plain_file import NotPlain, TooLarge, check_size, open_plain

MAX_PIXELS: Final = 178_956_970
"""More are taken for a decompression bomb; Pillow refuses twice its own limit of 89 million."""
_ORIENTATION: Final = 0x0112
_TURNED: Final = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
_NOT_READ: Final = ("EPS", "BUFR", "GRIB", "HDF5", "WMF", "FITS", "MCIDAS", "SPIDER")
"""Formats of Pillow that other programs decode (EPS by Ghostscript), that it only recognizes, or that hold
measurements, of which none is white."""


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.ID if name not in _NOT_READ]


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a picture's file says before it is decoded."""

    height: int
    width: int
    """Pixels, as they are shown: EXIF orientation applied."""
    transparent: bool
    """Whether some of it may be."""
    animated: bool
    """Whether there are several frames."""


def read_header(path: Path) -> PictureHeader:
    """What the file says. Raises InputError for what is no picture that can be used: without its path, which
    the caller knows."""
    try:
        with open_plain(path) as file:
            check_size(file, path, MAX_PICTURE_BYTES)
            return _header(file)
    except FileNotFoundError:
        raise InputError("there is no such file: correct it, or put the file there") from None
    except TooLarge:
        raise InputError(f"has more than {MAX_PICTURE_BYTES >> 30} GiB: make it smaller") from None
    except NotPlain:
        raise InputError("is no plain file: name the file itself") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise InputError("is no name of a file: correct it") from None


def read_picture(contents: bytes, height: int, width: int, fit: str, *, mask: bool = False) -> Image.Image:
    """The picture [height x width], mode RGB, or L for a mask. Raises InputError for a broken file."""
    return _fitted(read_whole_picture(contents, mask=mask), height, width, fit)


def read_whole_picture(contents: bytes, *, mask: bool = False) -> Image.Image:
    """The same in its own size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(contents), formats=_formats()) as opened:
                _check_pixels(opened)
                picture = ImageOps.exif_transpose(_without_alpha(opened, black=mask))
    except UnidentifiedImageError:
        raise InputError("is no picture that Pillow reads: save it as PNG, JPEG or WebP") from None
    except Image.DecompressionBombError:
        raise _bomb() from None
    except (InputError, MemoryError):
        raise
    # Pillow's formats raise nearly anything for files that are cut or damaged.
    except Exception as error:
        raise _broken(error) from None
    return picture.convert("L" if mask else "RGB")


def _header(file: IO[bytes]) -> PictureHeader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=_formats()) as picture:
                _check_pixels(picture)
                width, height = picture.size
                # A PNG's may stand behind its pixels, and Pillow would decode them to find it.
                if picture.format != "PNG" and picture.getexif().get(_ORIENTATION, 1) in _TURNED:
                    width, height = height, width
                animated, clear = getattr(picture, "is_animated", False), picture.has_transparency_data
                if picture.mode in DEEP:
                    check_deep(picture)
                return PictureHeader(height, width, clear, animated)
    except UnidentifiedImageError:
        raise InputError("is no picture that Pillow reads: save it as PNG, JPEG or WebP") from None
    except Image.DecompressionBombError:
        raise _bomb() from None
    except (OSError, InputError, MemoryError):
        raise
    # Pillow's formats raise nearly anything for files that are cut or damaged.
    except Exception as error:
        raise _broken(error) from None


def _check_pixels(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise _bomb()


def _broken(error: Exception) -> InputError:
    why = (str(error).splitlines() or [""])[0][:120]
    return InputError(f"is a broken picture ({why or type(error).__name__}): save it again")


def _bomb() -> InputError:
    return InputError(f"has more than {MAX_PIXELS:,} pixels, as decompression bombs have: make it smaller")


def _without_alpha(picture: Image.Image, *, black: bool) -> Image.Image:
    """The first frame without transparency, of a mode with 8 bits a channel."""
    if picture.mode in DEEP:
        return shades(picture, black=black)
    if not picture.has_transparency_data:
        picture.load()
        return picture
    exif = picture.getexif()
    seen = picture.convert("RGBA")
    under = Image.new("RGBA", seen.size, "black" if black else "white")
    laid = Image.alpha_composite(under, seen).convert("RGB")
    if exif:
        laid.info["exif"] = exif.tobytes()
    return laid


def _fitted(picture: Image.Image, height: int, width: int, fit: str) -> Image.Image:
    size = (width, height)
    if picture.size == size:
        return picture
    match fit:
        case "crop":
            return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        case "pad":
            return ImageOps.pad(picture, size, Image.Resampling.LANCZOS)
        case "stretch":
            return picture.resize(size, Image.Resampling.LANCZOS)
    raise ValueError(f"fit = {fit!r}: must be one of {Fit}")
