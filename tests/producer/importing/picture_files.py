"""Picture files with texts of other programs, as those write them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

EXIF_IFD = 0x8769
USER_COMMENT = 0x9286


def png(file: Path, texts: Mapping[str, str], size: tuple[int, int] = (64, 64)) -> Path:
    """A PNG with these text chunks."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", size).save(file, pnginfo=info)
    return file


def commented(file: Path, comment: bytes, size: tuple[int, int] = (64, 64)) -> Path:
    """A JPEG or WebP with these bytes as its user comment."""
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
    Image.new("RGB", size).save(file, exif=exif.tobytes())
    return file


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(file: Path, *chunks: bytes) -> Path:
    """A PNG with these chunks before its pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    plain = buffer.getvalue()
    at = plain.index(b"IDAT") - 4
    file.write_bytes(plain[:at] + b"".join(chunks) + plain[at:])
    return file
