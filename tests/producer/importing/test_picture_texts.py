"""Texts are read with bounds from files that anyone may have written."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image

from producer.importing.picture_texts import MAX_TEXT, read_texts
from producer.importing.recipe import Untold
from tests.producer.importing.picture_files import chunk, commented, png, with_chunks


def texts(file: Path) -> dict[str, str]:
    return dict(read_texts(file).texts)


def test_each_kind_of_text_chunk_is_read(tmp_path: Path) -> None:
    file = with_chunks(
        tmp_path / "a.png",
        chunk(b"tEXt", b"latin\0caf\xe9"),
        chunk(b"tEXt", "utf8\0狐".encode()),
        chunk(b"zTXt", b"packed\0\0" + zlib.compress(b"a fox")),
        chunk(b"iTXt", "plain\0\0\0de\0\0Füchse 狐".encode()),
        chunk(b"iTXt", b"both\0\1\0\0\0" + zlib.compress("狐".encode())),
    )
    assert texts(file) == {
        "latin": "café",
        "utf8": "狐",
        "packed": "a fox",
        "plain": "Füchse 狐",
        "both": "狐",
    }


def test_a_text_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    packing = zlib.compressobj()
    bomb = b"".join(packing.compress(bytes(1 << 20)) for _ in range(200)) + packing.flush()
    for kind, head in ((b"zTXt", b"parameters\0\0"), (b"iTXt", b"parameters\0\1\0\0\0")):
        file = with_chunks(tmp_path / "a.png", chunk(kind, head + bomb))
        tracemalloc.start()
        try:
            with pytest.raises(Untold, match="more than 16 MiB of text"):
                read_texts(file)
            assert tracemalloc.get_traced_memory()[1] < 100 << 20
        finally:
            tracemalloc.stop()


def test_many_texts_are_bounded_together(tmp_path: Path) -> None:
    half = zlib.compress(bytes(MAX_TEXT // 2 + 1))
    packed = [chunk(b"zTXt", f"t{number}\0\0".encode() + half) for number in range(4)]
    with pytest.raises(Untold, match="more than 16 MiB of text"):
        read_texts(with_chunks(tmp_path / "a.png", *packed))


def test_an_exif_of_64_megabytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Untold, match="more than 16 MiB of text"):
        read_texts(with_chunks(tmp_path / "a.png", chunk(b"eXIf", bytes(64 << 20))))


@pytest.mark.parametrize(
    "body", [b"", b"\0", b"name", b"name\0", b"name\0\1\0", b"name\0\0\0\0", b"name\0\1\0\0\0no zlib"]
)
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_a_damaged_chunk_is_empty_or_named(tmp_path: Path, kind: bytes, body: bytes) -> None:
    file = with_chunks(tmp_path / "a.png", chunk(kind, body))
    try:
        found = texts(file)
    except Untold as error:
        assert "is damaged" in str(error)
    else:
        assert set(found) <= {"", "name"}


def test_a_file_that_is_cut_anywhere_is_named(tmp_path: Path) -> None:
    whole = png(tmp_path / "a.png", {"parameters": "a fox"}).read_bytes()
    cut = tmp_path / "cut.png"
    for size in range(0, whole.index(b"IDAT"), 7):
        cut.write_bytes(whole[:size])
        with pytest.raises(Untold, match=r"damaged PNG|no PNG|is empty"):
            read_texts(cut)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    text = tmp_path / "a.png"
    text.write_text("GIF89a")
    with pytest.raises(Untold, match="is no PNG, JPEG or WebP"):
        read_texts(text)
    with pytest.raises(Untold, match="cannot be read: No such file"):
        read_texts(tmp_path / "none.png")
    with pytest.raises(Untold, match="is no file"):
        read_texts(tmp_path)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(Untold, match="is larger than 256 MiB"):
        read_texts(tmp_path / "a.png")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(Untold, match="is no file"):
        read_texts(tmp_path / "a.png")


def test_a_webp_without_room_for_texts_is_named(tmp_path: Path) -> None:
    for lossless in (False, True):
        Image.new("RGB", (64, 64)).save(tmp_path / "a.webp", lossless=lossless)
        with pytest.raises(Untold, match="nothing tells how it was made"):
            read_texts(tmp_path / "a.webp")


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_size_and_comment_of_jpeg_and_webp(tmp_path: Path, name: str) -> None:
    found = read_texts(commented(tmp_path / name, b"ASCII\0\0\0a fox", (72, 48)))
    assert (dict(found.texts), found.size) == ({"parameters": "a fox"}, (72, 48))
