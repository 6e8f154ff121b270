"""Pictures alone in one folder, and with captions as trainers read them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import OutputError
from producer.export.consumer import Written
from producer.export.flat import Flat
from producer.export.names import INDEX, NameTemplate
from producer.export.source import Picture


def picture(number: int, text: str = "a fox", suffix: str = "png", **columns: Any) -> Picture:
    data = f"picture {number}".encode()
    record = {"file_name": f"{number:09d}.{suffix}", "text": text, "image_id": f"{number:016x}", "id": None}
    return Picture({**record, "seed": 7, **columns, "sha256": hashlib.sha256(data).hexdigest()}, data)


def write(target: Path, pictures: Sequence[Picture], name: str = INDEX, *, captions: bool = False) -> Written:
    form = Flat(NameTemplate(name), captions=captions)
    for one in pictures:
        form.add(one.record)
    return form.write(target, iter(pictures))


def test_a_flat_folder_holds_the_pictures_and_nothing_else(tmp_path: Path) -> None:
    pictures = [picture(0), picture(1, suffix="jpg"), picture(2, suffix="webp")]
    assert write(tmp_path / "flat", pictures) == Written()
    assert {file.name: file.read_bytes() for file in (tmp_path / "flat").iterdir()} == {
        "000000000.png": b"picture 0", "000000001.jpg": b"picture 1", "000000002.webp": b"picture 2",
    }  # fmt: skip


def test_pictures_are_as_many_as_rows_of_one_seed_when_ids_name_them(tmp_path: Path) -> None:
    pictures = [picture(number, id=str(1000 - number)) for number in range(50)]
    write(tmp_path / "flat", pictures, "{id}.png")
    assert sorted(file.name for file in (tmp_path / "flat").iterdir()) == sorted(
        f"{1000 - number}.png" for number in range(50)
    )


def test_two_rows_of_one_name_are_named_before_anything_is_written(tmp_path: Path) -> None:
    pictures = [picture(0, id="cat"), picture(1, id="dog"), picture(2, id="Cat")]
    with pytest.raises(OutputError, match=r"image 0{16} \(index 0\) and image 0{15}2 \(index 2\) would both"):
        write(tmp_path / "flat", pictures, "{id}")
    assert not (tmp_path / "flat").exists()


def read_captions(folder: Path, extension: str = ".txt") -> dict[str, str]:
    """As trainers do: for each picture the first line of the file of its stem, which must have one."""
    found = {}
    for file in sorted(folder.iterdir()):
        if file.suffix in {".png", ".jpg", ".jpeg", ".webp"}:
            with file.with_suffix(extension).open(encoding="utf-8") as lines:
                read = lines.readlines()
            assert read, "a caption file is empty"
            found[file.name] = read[0].strip()
    return found


def test_a_trainer_reads_every_caption_also_an_empty_one_and_one_of_several_lines(tmp_path: Path) -> None:
    pictures = [
        picture(0, "naïve 狐 🦊"),
        picture(1, ""),
        picture(2, "one\ntwo\r\nthree"),
        picture(3, "x" * 9000),
    ]
    written = write(tmp_path / "captions", pictures, "v1.{index}", captions=True)
    assert read_captions(tmp_path / "captions") == {
        "v1.0.png": "naïve 狐 🦊", "v1.1.png": "", "v1.2.png": "one two three", "v1.3.png": "x" * 9000,
    }  # fmt: skip
    assert written.remarks == ("1 prompt of several lines written on one",)


def test_two_pictures_that_would_share_a_caption_are_refused(tmp_path: Path) -> None:
    pictures = [picture(0, id="a"), picture(1, suffix="jpg", id="a")]
    write(tmp_path / "flat", pictures, "{id}")
    with pytest.raises(OutputError, match="would both be called"):
        write(tmp_path / "captions", pictures, "{id}", captions=True)
