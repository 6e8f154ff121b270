"""The texts in EXIF: the user comment, in whichever encoding, and what programs put into other fields.

Sources: EXIF 2.32 (JEITA CP-3451, 4.6.5 UserComment) and TIFF 6.0 for the layout; ComfyUI's `nodes_images.py`
for graphs in Make and Model.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_EXIF_IFD: Final = 0x8769
_TEXTS: Final = {0x010E: "Description", 0x0131: "Software", 0x927C: "fooocus_scheme", 0x9286: "parameters"}
"""Tags, and the keyword under which a PNG has the same text."""
_GRAPHS: Final = frozenset({0x010F, 0x0110})
"""Make and Model: ComfyUI writes `workflow:{…}` and `prompt:{…}` there."""
_BYTES: Final = frozenset({1, 2, 7})
"""The types BYTE, ASCII and UNDEFINED; others hold no text."""
_HEAD: Final = 8
_LOOKED_AT: Final = 4096
"""Characters of a text by which its byte order is told."""


def exif_texts(data: bytes) -> dict[str, str]:
    """The texts of an EXIF block, with or without its mark `Exif`, by the keywords of PNG's text chunks.

    A damaged block gives the texts that can be read.
    """
    block = data[6:] if data.startswith(b"Exif\0\0") else data
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    found: dict[str, str] = {}
    if order is None:
        return found
    try:
        [first] = struct.unpack_from(order + "I", block, 4)
        below = None
        for tag, value in _fields(block, order, first):
            below = value if tag == _EXIF_IFD else below
            _put(found, tag, value, order)
        if isinstance(below, int):
            for tag, value in _fields(block, order, below):
                _put(found, tag, value, order)
    except struct.error:
        pass
    return found


def _fields(block: bytes, order: str, at: int) -> Iterator[tuple[int, bytes | int]]:
    """Each of our tags in a directory, once, with its value; the directory below with its offset."""
    [count] = struct.unpack_from(order + "H", block, at)
    seen = set()
    for index in range(count):
        here = at + 2 + 12 * index
        tag, kind, number, value = struct.unpack_from(order + "HHII", block, here)
        if tag in seen:
            continue
        seen.add(tag)
        if tag == _EXIF_IFD:
            yield tag, value
        # 65,535 fields could each claim all bytes of the block.
        elif kind in _BYTES and (tag in _TEXTS or tag in _GRAPHS):
            start = here + 8 if number <= 4 else value
            yield tag, block[start : start + number]


def _put(found: dict[str, str], tag: int, value: bytes | int, order: str) -> None:
    if isinstance(value, int):
        return
    if tag in _GRAPHS:
        name, colon, text = value.rstrip(b"\0").decode("utf-8", "replace").partition(":")
        if colon and name.lower() in ("prompt", "workflow"):
            found[name.lower()] = text
    elif tag in _TEXTS:
        text = comment_text(value, order)
        if text:
            found[_TEXTS[tag]] = text


def comment_text(value: bytes, order: str = ">") -> str:
    """The text of a UserComment, whose first 8 bytes name its encoding; of other bytes as UTF-8.

    EXIF leaves the byte order of UNICODE to the file, `order`; A1111 writes big-endian UTF-16 in any file,
    other programs little-endian. What reads as more letters of ASCII is taken.
    """
    head, body = value[:_HEAD], value[_HEAD:]
    if head == b"UNICODE\0":
        return _utf16(body, order)
    if head == b"JIS\0\0\0\0\0":
        text = body.decode("iso2022_jp", "replace")
        return text.rstrip("\0")
    if head in (b"ASCII\0\0\0", bytes(_HEAD)):
        return _utf8(body)
    return _utf8(value)


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8").rstrip("\0")
    except UnicodeDecodeError:
        return data.decode("latin-1").rstrip("\0")


def _utf16(data: bytes, order: str) -> str:
    even = data[: len(data) // 2 * 2]
    if even[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return even.decode("utf-16", "replace").rstrip("\0")
    orders = ("utf-16-be", "utf-16-le") if order == ">" else ("utf-16-le", "utf-16-be")
    texts = [even.decode(name, "replace") for name in orders]
    # max takes the first of equals: the file's own order.
    return max(texts, key=lambda text: sum("\0" < one < "\x80" for one in text[:_LOOKED_AT])).rstrip("\0")
