"""An image file's bytes, judged without decoding: whole or not, how large, and the request that made it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
import zlib
from dataclasses import dataclass

from jobs.request import ImageRequest

_PNG = b"\x89PNG\r\n\x1a\n"
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_REQUEST = "{urn:imagemill:1}request"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 … SOF15: of the numbers between them three are no frames (DHT, JPG, DAC)."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """What a whole image file says of itself."""

    image_format: str
    """png, jpeg or webp."""
    width: int
    height: int
    request: ImageRequest | None
    """None when it holds none: imagemill did not write it, or another program saved it again."""


def read_picture(data: bytes) -> PictureFile:
    """What the PNG, JPEG or WebP file `data` says of itself.

    Every chunk or segment is walked to the file's end, and a PNG's checksums are computed; compressed pixels
    are not looked at. Raises ValueError saying what is broken. Sources: the PNG specification (chunk layout),
    ITU T.81 annex B, RFC 9649 (WebP).
    """
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    raise ValueError("is no PNG, JPEG or WebP" if data else "is empty")


def _png(data: bytes) -> PictureFile:
    at, kind, text, size, pixels = len(_PNG), b"", None, None, False
    while kind != b"IEND":
        kind, body = data[at + 4 : at + 8], at + 8
        end = body + int.from_bytes(data[at : at + 4], "big")
        name = kind.decode("latin-1")
        if body > len(data) or end + 4 > len(data):
            raise ValueError(_cut_off(data, f"chunk {name}" if kind.isalpha() else "its chunks"))
        if zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError(f"bytes were changed: chunk {name!r} at byte {at} has a wrong checksum")
        if kind == b"IHDR":
            size = (
                int.from_bytes(data[body : body + 4], "big"),
                int.from_bytes(data[body + 4 : body + 8], "big"),
            )
        elif kind in {b"tEXt", b"iTXt"} and data.startswith(b"imagemill\0", body, end):
            text = _png_text(kind, data[body + len(b"imagemill\0") : end])
        pixels = pixels or kind == b"IDAT"
        at = end + 4
    if size is None or not pixels:
        raise ValueError("is a PNG without header or pixels")
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes follow the PNG's end")
    return PictureFile("png", *size, _request(text))


def _png_text(kind: bytes, value: bytes) -> str | None:
    if kind == b"tEXt":
        return value.decode("latin-1")
    # Compression flag, method, language, translated keyword, then the text.
    parts = value[2:].split(b"\0", 2)
    return parts[2].decode("utf-8", "replace") if value[:1] == b"\0" and len(parts) == 3 else None


def _jpeg(data: bytes) -> PictureFile:
    at, size, xmp = 2, None, b""
    while True:
        marker, body = data[at + 1 : at + 2], at + 4
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data) or body > len(data):
            raise ValueError(_cut_off(data, "its segments"))
        if data[at] != 0xFF or end < body:
            raise ValueError(f"bytes were changed: no JPEG segment begins at byte {at}")
        if marker[0] in _JPEG_FRAMES:
            size = (
                int.from_bytes(data[body + 3 : body + 5], "big"),
                int.from_bytes(data[body + 1 : body + 3], "big"),
            )
        elif marker == b"\xe1" and data.startswith(_XMP_MARK, body, end):
            xmp = data[body + len(_XMP_MARK) : end]
        elif marker == b"\xda":
            break
        at = end
    if size is None:
        raise ValueError("is a JPEG without a frame")
    if not data.endswith(b"\xff\xd9"):
        raise ValueError(f"is cut off or was added to: its {len(data):,} bytes do not end as a JPEG's do")
    return PictureFile("jpeg", *size, _request(_xmp_text(xmp)))


def _webp(data: bytes) -> PictureFile:
    at, size, xmp, pixels = 12, None, b"", False
    length = 8 + int.from_bytes(data[4:8], "little")
    if length > len(data):
        raise ValueError(_cut_off(data, f"a file of {length:,}"))
    if length < len(data):
        raise ValueError(f"{len(data) - length} bytes follow the WebP's end")
    while at < length:
        kind, body = data[at : at + 4], at + 8
        end = body + int.from_bytes(data[at + 4 : at + 8], "little")
        if body > length or end > length:
            raise ValueError(f"bytes were changed: the chunk at byte {at} reaches beyond the file's end")
        if kind == b"VP8X":
            size = (
                1 + int.from_bytes(data[body + 4 : body + 7], "little"),
                1 + int.from_bytes(data[body + 7 : body + 10], "little"),
            )
        elif kind == b"XMP ":
            xmp = data[body:end]
        pixels = pixels or kind in {b"VP8 ", b"VP8L"}
        at = end + end % 2
    if size is None or not pixels:
        raise ValueError("is a WebP without header or pixels")
    return PictureFile("webp", *size, _request(_xmp_text(xmp)))


def _cut_off(data: bytes, inside: str) -> str:
    return f"is cut off: its {len(data):,} bytes end inside {inside}"


def _xmp_text(packet: bytes) -> str | None:
    if not packet:
        return None
    try:
        elements = ET.fromstring(packet).iter()
    except (ET.ParseError, LookupError, ValueError):  # LookupError: of an encoding that there is not
        return None
    return next((e.attrib[_XMP_REQUEST] for e in elements if _XMP_REQUEST in e.attrib), None)


def _request(text: str | None) -> ImageRequest | None:
    if text is None:
        return None
    try:
        return ImageRequest.from_mapping(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None
