"""The records of a tar in one member, `.records.jsonl.zst`, before its pictures.

One reading of a tar's first bytes, from far away, tells what is in it and where: its KEY.json lie between the
pictures. A line is JSON: [bytes of the picture, of KEY.txt, of KEY.json, the record as KEY.json has it]. The
samples follow this member in the order of the lines, so that their places follow from the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import zstandard

from jobs.output.stored_shard import Span, damaged, sound_record
from jobs.output.tar_file import following
from jobs.plain_file import MAX_OF_OUTPUT
from jobs.strict_json import strict_json

RECORDS: Final = ".records.jsonl.zst"


class Sample(NamedTuple):
    """What a tar holds of one image."""

    picture: Span
    json: Span
    """Where KEY.json lies."""
    record: dict[str, Any]


def records_bytes(samples: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """The member's contents. Of each sample: the bytes that its picture has, its text, its record as JSON."""
    lines = b"".join(b"[%d,%d,%d,%b]\n" % (size, len(text), len(said), said) for size, text, said in samples)
    return zstandard.ZstdCompressor().compress(lines)


def read_records(place: str, contents: bytes, end: int, size: int) -> Sequence[Sample]:
    """The samples that a member tells, which ends, with its padding, at byte `end` of a tar of `size` bytes.

    Raises OutputError where it tells no samples of this tar.
    """
    samples: list[Sample] = []
    try:
        if zstandard.frame_content_size(contents) > MAX_OF_OUTPUT:
            raise ValueError(f"more than {MAX_OF_OUTPUT >> 20} MiB of them")
        for line in zstandard.ZstdDecompressor().decompress(contents, MAX_OF_OUTPUT).splitlines():
            *sizes, record = strict_json(line)
            spans = []
            for one in sizes:
                if type(one) is not int or one < 0:
                    raise ValueError(f"{one!r} is no number of bytes")
                start, end = following(end, one)
                spans.append(Span(start, one))
            picture, _, told = spans
            samples.append(Sample(picture, told, sound_record(place, record)))
    except (zstandard.ZstdError, ValueError, TypeError) as error:
        raise damaged(place, f"tells no records ({error})") from None
    if end > size:
        raise damaged(place, f"tells of {end:,} bytes, and the tar has {size:,}")
    return samples
