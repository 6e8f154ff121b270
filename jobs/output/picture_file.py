"""What an image file says of itself without being decoded: its format, its size, the request that made it.

PNG holds the request as the text chunk `imagemill`, JPEG and WebP as the XMP property `imagemill:request`.
All say in XMP that an algorithm made them (`jobs.output.xmp`), unless an early version wrote them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.output.jpeg_text import XMP_MARK
from jobs.output.xmp import Packet, read_packet
from jobs.request import ImageRequest
from jobs.strict_json import strict_json

PNG_TEXT = "imagemill"
PNG_XMP = "XML:com.adobe.xmp"
"""The text chunk of XMP. Source: XMP specification part 3, 1.1.5."""
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEY, _PNG_XMP_KEY = PNG_TEXT.encode() + b"\0", PNG_XMP.encode() + b"\0"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 … SOF15; three numbers between them are not frames (DHT, JPG, DAC)."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """What an image file says of itself."""

    image_format: str
    """png, jpeg or webp."""
    width: int
    height: int
    request: ImageRequest | None
    """None when it holds none: imagemill did not write it, or another program saved it again."""
    source_type: str | None = None
    """IPTC's digital source type in its XMP; None where it says none."""


def read_picture(data: bytes) -> PictureFile:
    """What the PNG, JPEG or WebP file `data` says of itself, without its pixels.

    Raises ValueError when it is none of these, or damaged before its pixels. Sources: the PNG specification
    (chunk layout), ITU T.81 annex B, RFC 9649 (WebP).
    """
    form, width, height, text, said = "", 0, 0, None, Packet()
    try:
        for form, part, body in parts(data):
            match form, part:
                case "png", b"IHDR":
                    width, height = struct.unpack_from(">II", body)
                case "png", b"tEXt" | b"iTXt" if body.startswith(_PNG_KEY):
                    text = _png_text(part, body[len(_PNG_KEY) :])
                case "png", b"iTXt" if body.startswith(_PNG_XMP_KEY):
                    packet = _png_text(part, body[len(_PNG_XMP_KEY) :])
                    said = read_packet(b"" if packet is None else packet.encode("utf-8", "replace"))
                case "jpeg", b"\xe1" if body.startswith(XMP_MARK):
                    said = read_packet(body[len(XMP_MARK) :])
                case "jpeg", marker if marker[0] in _JPEG_FRAMES:
                    height, width = struct.unpack_from(">HH", body, 1)
                case "webp", b"VP8X":
                    width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
                case "webp", b"XMP ":
                    said = read_packet(body)
    except struct.error:
        width = 0
    if width == 0:
        if form:
            raise ValueError(f"is a damaged {form.upper()}")
        raise ValueError("is no PNG, JPEG or WebP" if data else "is empty")
    request = text if form == "png" else said.request
    return PictureFile(form, width, height, _request(request), said.source_type)


def parts(data: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """The format, kind and content of each chunk or segment, up to the pixels where the format allows it.

    Raises struct.error where a header should be and is not, or a PNG's checksum is wrong.
    """
    if data.startswith(_PNG):
        at, kind = len(_PNG), b""
        while kind != b"IDAT":
            length, kind = struct.unpack_from(">I4s", data, at)
            # A request with a damaged byte would pass for another picture's.
            if struct.unpack_from(">I", data, at + 8 + length)[0] != zlib.crc32(
                data[at + 4 : at + 8 + length]
            ):
                raise struct.error(f"chunk at byte {at}: wrong checksum")
            yield "png", kind, data[at + 8 : at + 8 + length]
            at += 12 + length
    elif data.startswith(b"\xff\xd8"):
        at, kind = 2, b""
        while kind != b"\xda":  # the start of the scan
            kind, length = struct.unpack_from(">xcH", data, at)
            yield "jpeg", kind, data[at + 4 : at + 2 + length]
            at += 2 + max(length, 2)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        at = 12
        while at < len(data):
            kind, length = struct.unpack_from("<4sI", data, at)
            yield "webp", kind, data[at + 8 : at + 8 + length]
            at += 8 + length + length % 2


def _png_text(kind: bytes, value: bytes) -> str | None:
    if kind == b"tEXt":
        return value.decode("latin-1")
    # Compression flag, method, language, translated keyword, then the text.
    parts = value[2:].split(b"\0", 2)
    return parts[2].decode("utf-8", "replace") if value[:1] == b"\0" and len(parts) == 3 else None


def _request(text: str | None) -> ImageRequest | None:
    if text is None:
        return None
    try:
        return ImageRequest.from_mapping(strict_json(text))
    except (ValueError, TypeError):
        return None
