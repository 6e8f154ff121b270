"""The user comment is read in each encoding that programs write."""

from __future__ import annotations

import struct

import pytest

from producer.importing.exif import comment_text, exif_texts

TEXT = "ein Füchslein 狐 🦊\nSteps: 20"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16"])
def test_unicode_is_read_in_either_byte_order(encoding: str, order: str) -> None:
    assert comment_text(b"UNICODE\0" + TEXT.encode(encoding), order) == TEXT


def test_without_a_letter_of_ascii_the_files_own_order_counts() -> None:
    assert comment_text(b"UNICODE\0" + "狐狸".encode("utf-16-le"), "<") == "狐狸"
    assert comment_text(b"UNICODE\0" + "狐狸".encode("utf-16-be"), ">") == "狐狸"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"ASCII\0\0\0a fox", "a fox"),
        (b"ASCII\0\0\0" + TEXT.encode(), TEXT),
        (b"ASCII\0\0\0caf\xe9", "café"),
        (b"JIS\0\0\0\0\0" + "狐".encode("iso2022_jp"), "狐"),
        (bytes(8) + TEXT.encode(), TEXT),
        (b"no head at all", "no head at all"),
        (b"", ""),
        (b"UNICODE\0\0", ""),
    ],
)
def test_other_encodings(value: bytes, text: str) -> None:
    assert comment_text(value) == text


def block(order: str, *fields: tuple[int, int, bytes]) -> bytes:
    """A TIFF block of one directory."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    at = 8 + 2 + 12 * len(fields) + 4
    entries, values = b"", b""
    for tag, kind, value in fields:
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", at + len(values))
        entries += struct.pack(order + "HHI", tag, kind, len(value)) + place
        values += value if len(value) > 4 else b""
    return head + struct.pack(order + "H", len(fields)) + entries + bytes(4) + values


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_in_the_first_directory_are_found(order: str) -> None:
    data = block(
        order,
        (0x010F, 2, b'workflow:{"nodes": []}\0'),
        (0x0110, 2, b'prompt:{"1": {}}\0'),
        (0x0131, 2, b"abc\0"),
        (0x9286, 2, b"a fox in the snow\0"),
    )
    expected = {
        "workflow": '{"nodes": []}', "prompt": '{"1": {}}', "Software": "abc",
        "parameters": "a fox in the snow",
    }  # fmt: skip
    assert exif_texts(b"Exif\0\0" + data) == expected
    assert exif_texts(data) == expected


def test_a_block_that_is_cut_anywhere_raises_nothing() -> None:
    data = block("<", (0x9286, 7, b"ASCII\0\0\0a fox"), (0x8769, 4, b"\x08\0\0\0"))
    for size in range(len(data)):
        found = exif_texts(data[:size])
        assert set(found) <= {"parameters"}


def test_fields_that_all_claim_the_whole_block_are_read_once() -> None:
    count = 60_000
    head = b"II*\0" + struct.pack("<IH", 8, count)
    data = head + struct.pack("<HHII", 0x9286, 7, 8 << 20, 0) * count + b"\0" * (8 << 20)
    assert set(exif_texts(data)) <= {"parameters"}
