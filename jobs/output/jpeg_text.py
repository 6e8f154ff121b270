"""Whether a request fits into a JPEG, whose EXIF and XMP are segments of 64 kB.

PNG and WebP have 4 GB for each text, and no request is as long.
"""

from __future__ import annotations

from jobs.output.metadata import parameters_text
from jobs.output.xmp import write_packet
from jobs.request import ImageRequest

SEGMENT = 65_533
"""Bytes of a segment at most, without its mark and length. Source: ITU T.81, B.1.1.4."""
XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
"""Before the packet in its segment. Source: XMP specification part 3, 1.1.3."""

_EXIF = 58
"""Bytes of an EXIF segment that holds a UserComment alone, without its text: Exif and two NUL 6, TIFF 8, two
IFDs of one entry 36, UNICODE and NUL 8."""


def jpeg_trouble(request: ImageRequest, *, says_source: bool = True) -> str | None:
    """What of the request is too long for a JPEG, with the remedy; None when all fits."""
    exif = _EXIF + 2 * _utf16_units(parameters_text(request))
    xmp = len(XMP_MARK) + len(write_packet(request, says_source=says_source))
    if max(exif, xmp) <= SEGMENT:
        return None
    texts = {
        "prompt": request.prompt, "negative_prompt": request.negative_prompt, "arguments": request.arguments,
    }  # fmt: skip
    longest = max(texts, key=lambda name: len(texts[name]))
    return (
        f"{longest} ({len(texts[longest]):,} characters) is too long for a JPEG, which has {SEGMENT:,} bytes "
        f"to say how it was made, and would need {max(exif, xmp):,}: shorten it, or use image_format: png or "
        "webp"
    )


def _utf16_units(text: str) -> int:
    """How many 16-bit units the text has in UTF-16."""
    return len(text.encode("utf-16-be")) // 2
