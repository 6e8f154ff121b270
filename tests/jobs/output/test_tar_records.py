"""What one member of a tar tells of all its samples."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import zstandard

from jobs.errors import OutputError
from jobs.output.tar_file import TarReader, TarWriter
from jobs.output.tar_records import RECORDS, read_records, records_bytes


class InMemory:
    """An open file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read_at(self, start: int, size: int) -> bytes:
        return self.data[start : start + size]


def record(number: int) -> dict[str, Any]:
    return {"image_id": f"{number:016x}", "file_name": f"{number:09}.png", "text": "ein Füchslein"}


def tar_of(pictures: list[bytes]) -> tuple[TarReader, list[dict[str, Any]]]:
    records = [record(number) for number in range(len(pictures))]
    said = [json.dumps(one).encode() for one in records]
    texts = [one["text"].encode() for one in records]
    file = io.BytesIO()
    writer = TarWriter(file)
    sizes = [len(one) for one in pictures]
    writer.add(RECORDS, records_bytes(zip(sizes, texts, said, strict=True)))
    for one, picture, text, told in zip(records, pictures, texts, said, strict=True):
        writer.add(one["file_name"], picture)
        writer.add(one["file_name"].replace("png", "txt"), text)
        writer.add(one["file_name"].replace("png", "json"), told)
    writer.close()
    return TarReader(InMemory(file.getvalue())), records


@pytest.mark.parametrize("sizes", [[], [0], [1, 511, 512, 513, 70_000]])
def test_the_places_of_all_samples_are_those_that_the_tar_has(sizes: list[int]) -> None:
    tar, records = tar_of([bytes([number]) * size for number, size in enumerate(sizes)])
    first, *others = tar.members()
    told = read_records("00000.tar", tar.read(first), first.end, tar.size)
    assert [sample.record for sample in told] == records
    assert [sample.picture for sample in told] == [(m.start, m.size) for m in others if "png" in m.name]
    assert [sample.json for sample in told] == [(m.start, m.size) for m in others if "json" in m.name]


def lines(*values: object) -> bytes:
    return zstandard.compress(b"".join(json.dumps(value).encode() + b"\n" for value in values))


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (b"no zstd", "tells no records"),
        (lines([1, 2, record(1)]), "tells no records"),
        (lines([1, 2, 3, 4, record(1)]), "tells no records"),
        (lines([-1, 2, 3, record(1)]), "-1 is no number of bytes"),
        (lines([1.5, 2, 3, record(1)]), "1.5 is no number of bytes"),
        (lines([True, 2, 3, record(1)]), "True is no number of bytes"),
        (lines(7), "tells no records"),
        (lines([1, 2, 3, "record"]), "not a JSON object"),
        (lines([1, 2, 3, record(1) | {"file_name": "../../a.png"}]), "names no picture"),
        (lines([1, 2, 10**9, record(1)]), "and the tar has 10,240"),
        (zstandard.compress(b"[" * 300_000_000), "MiB of them"),
    ],
)
def test_what_tells_no_samples_of_this_tar_is_damaged(contents: bytes, says: str) -> None:
    with pytest.raises(OutputError, match=r"00001\.tar") as damaged:
        read_records("00001.tar", contents, 1024, 10_240)
    assert says in str(damaged.value)
