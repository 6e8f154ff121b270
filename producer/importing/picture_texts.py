"""The texts that a picture's file holds, read with bounds: the file may be anyone's."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.output.picture_file import parts, read_picture
from jobs.plain_file import NotPlain, TooLarge, read_plain
from jobs.request import ImageRequest
from producer.importing.exif import exif_texts
from producer.importing.recipe import Untold

MAX_FILE: Final = 256 << 20
"""Bytes of a picture's file."""
MAX_TEXT: Final = 16 << 20
"""Bytes of all texts of a file, unpacked. A graph of ComfyUI with pictures in it has a few million."""
XMP: Final = "XML:com.adobe.xmp"
_TOO_MUCH: Final = f"holds more than {MAX_TEXT >> 20} MiB of text, and is not read"
_EXIF_MARK, _XMP_MARK = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True, slots=True)
class PictureTexts:
    """What a picture's file says, beside its pixels."""

    texts: Mapping[str, str]
    """Texts by the keywords that PNG's chunks have: `parameters`, `prompt`, …"""
    size: tuple[int, int]
    """Width and height in pixels."""
    request: ImageRequest | None
    """imagemill's own request, its values unchecked."""


def read_texts(file: Path) -> PictureTexts:
    """The texts of a PNG, JPEG or WebP file. Raises Untold with what is wrong with it."""
    data = _read(file)
    # WebP has room for texts only in its extended form.
    if data[:4] == b"RIFF" and data[12:15] == b"VP8" and data[15:16] != b"X":
        raise Untold("holds no text: nothing tells how it was made")
    try:
        picture = read_picture(data)
    except ValueError as error:
        raise Untold(str(error)) from None
    texts: dict[str, str] = {}
    for form, part, body in parts(data):
        if sum(map(len, texts.values())) > MAX_TEXT:
            raise Untold(_TOO_MUCH)
        match form, part:
            case "png", b"tEXt" | b"zTXt" | b"iTXt":
                texts.update(_png_text(part, body))
            case ("png", b"eXIf") | ("webp", b"EXIF"):
                texts = exif_texts(_bounded(body)) | texts
            case "jpeg", b"\xe1" if body.startswith(_EXIF_MARK):
                texts = exif_texts(body) | texts
            case "jpeg", b"\xe1" if body.startswith(_XMP_MARK):
                texts[XMP] = body[len(_XMP_MARK) :].decode("utf-8", "replace")
            case "webp", b"XMP ":
                texts[XMP] = _bounded(body).decode("utf-8", "replace")
    return PictureTexts(texts, (picture.width, picture.height), picture.request)


def _read(file: Path) -> bytes:
    try:
        return read_plain(file, MAX_FILE)
    except NotPlain:
        raise Untold("is no file") from None
    except TooLarge:
        raise Untold(f"is larger than {MAX_FILE >> 20} MiB, and is not read") from None
    except OSError as error:
        raise Untold(f"cannot be read: {error.strerror}") from None
    except ValueError:  # NUL in a name
        raise Untold("cannot be read: no file has such a name") from None


def _png_text(kind: bytes, body: bytes) -> dict[str, str]:
    """The keyword and the text of a chunk; nothing where it is damaged. Source: PNG specification, 11.3.4."""
    keyword, _, rest = body.partition(b"\0")
    name = keyword.decode("latin-1")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[1:]
    if kind != b"tEXt":
        rest = rest[1:]  # the method of compression; there is one
    if kind == b"iTXt":
        fields = rest.split(b"\0", 2)
        if len(fields) < 3:
            return {}
        rest = fields[2]
    value = _unpacked(rest, name) if packed else _bounded(rest)
    return {name: value.decode("utf-8", "replace") if kind == b"iTXt" else _latin(value)}


def _latin(value: bytes) -> str:
    """Latin-1, as PNG has it; UTF-8 where a program wrote that, which Latin-1 reads as control characters."""
    text = value.decode("latin-1")
    if any("\x80" <= one <= "\x9f" for one in text):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return text


def _bounded(value: bytes) -> bytes:
    if len(value) > MAX_TEXT:
        raise Untold(_TOO_MUCH)
    return value


def _unpacked(value: bytes, name: str) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        return _bounded(unpacking.decompress(value, MAX_TEXT + 1))
    except zlib.error:
        raise Untold(f"its text {name[:40]!r} is damaged") from None
