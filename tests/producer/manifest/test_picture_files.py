"""Which file a line's picture is, from every place that may name one, and what is said of others."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from jobs.errors import ImagemillError, ManifestError
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.prompt_files.reading import Reading
from producer.requests.prepared import prepare


class Folder:
    """A folder with pictures and a manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reading = Reading()

    def picture(self, name: str, colour: str = "red", **options: Any) -> str:
        """Saves a picture; returns the SHA-256 of its file."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new(options.pop("mode", "RGB"), options.pop("size", (64, 64)), colour).save(file, **options)
        return sha256(file.read_bytes()).hexdigest()

    def asked(self, **keys: Any) -> list[ImageRequest]:
        """The requests of a manifest with these keys."""
        manifest = {"name": "m", "model": "instant", "output": str(self.path / "out")} | keys
        manifest["settings"] = {"height": 64, "width": 64, "seed": 1} | keys.get("settings", {})
        (self.path / "m.yaml").write_text(json.dumps(manifest))  # JSON is YAML
        self.reading = Reading()
        prepared = prepare(self.path / "m.yaml", Settings())
        return [entry.request for _, entry in prepared.entries(None, self.reading)]

    def refusal(self, **keys: Any) -> str:
        """Why a manifest with these keys is refused, without the folder's name."""
        with pytest.raises(ImagemillError) as refused:
            self.asked(**keys)
        return str(refused.value).replace(f"{self.path}/", "")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_prompt_names_a_file_relative_to_the_manifest(folder: Folder) -> None:
    red, blue = folder.picture("photos/a.png"), folder.picture("b.webp", "blue")
    above = folder.picture("x/../c.png", "green")
    prompts = [
        {"prompt": "x", "image": "photos/a.png", "mask_image": "b.webp"},
        {"prompt": "x", "image": str(folder.path / "b.webp")},
        {"prompt": "x", "image": "photos/../c.png"},
        "x",
    ]
    asked = folder.asked(prompts=prompts)
    assert [(one.image, one.mask_image) for one in asked] == [
        (red, blue),
        (blue, None),
        (above, None),
        (None, None),
    ]


def test_one_pattern_names_the_picture_of_each_line_by_its_id_and_columns(folder: Folder) -> None:
    hashes = [folder.picture(f"photos/{name}.png", name) for name in ("red", "blue")]
    lines = [
        {"prompt": "x", "id": "red", "columns": {"kind": "photos"}},
        {"prompt": "y", "id": "blue", "columns": {"kind": "photos"}},
    ]
    asked = folder.asked(prompts=lines, settings={"image": "{kind}/{id}.png"})
    assert [one.image for one in asked] == hashes
    own = folder.asked(
        prompts=[lines[0] | {"image": "photos/blue.png"}, lines[1]], settings={"image": "{kind}/{id}.png"}
    )
    assert [one.image for one in own] == [hashes[1], hashes[1]]


def test_a_folder_pairs_its_pictures_with_lines_by_id(folder: Folder) -> None:
    red, blue = folder.picture("photos/red.png"), folder.picture("photos/blue.jpg", "blue")
    (folder.path / "photos" / "red.txt").write_text("a caption")
    lines = [{"prompt": "x", "id": name} for name in ("red", "blue")]
    for written in ("photos", "photos/", str(folder.path / "photos")):
        asked = folder.asked(prompts=lines, settings={"images_from": written})
        assert [one.image for one in asked] == [red, blue]
    assert "several pictures called red" in folder_with_two(folder).refusal(
        prompts=lines, settings={"images_from": "photos"}
    )
    gone = folder.refusal(prompts=[{"prompt": "x", "id": "pink"}], settings={"images_from": "photos"})
    assert "has no picture called pink: put one there" in gone
    both = folder.refusal(prompts=lines, settings={"images_from": "photos", "image": "a.png"})
    assert both.endswith("is in `image` too: remove one of them")


def folder_with_two(folder: Folder) -> Folder:
    """The folder, in which two pictures are called red."""
    folder.picture("photos/red.webp")
    return folder


def test_a_folder_with_braces_and_brackets_in_its_own_name_is_no_pattern(tmp_path: Path) -> None:
    there = tmp_path / "{a} [b]"
    there.mkdir()
    folder = Folder(there)
    red = folder.picture("photos {x}/red.png")
    line = {"prompt": "x", "id": "red"}
    assert folder.asked(prompts=[line], settings={"images_from": "photos {x}"})[0].image == red
    assert folder.asked(prompts=[line | {"image": "photos {{x}}/{id}.png"}])[0].image == red


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_column_of_a_prompt_file_names_a_picture(folder: Folder, form: str) -> None:
    red, blue = folder.picture("photos/red.png"), folder.picture("photos/blue.png", "blue")
    rows = [
        {"text": "a", "file_name": "photos/red.png"},
        {"text": "b", "file_name": "photos/blue.png"},
        {"text": "c", "file_name": None},
    ]
    file = folder.path / f"rows.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif form == "jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        file.write_text("text,file_name\na,photos/red.png\nb,photos/blue.png\nc,\n")
    source = {"file": file.name, "fields": {"prompt": "text", "image": "file_name"}}
    assert [one.image for one in folder.asked(prompts_from=source)] == [red, blue, None]


def test_a_row_that_names_no_usable_picture_is_bad_and_may_be_skipped(folder: Folder) -> None:
    red = folder.picture("red.png")
    (folder.path / "text.png").write_text("a picture")
    (folder.path / "rows.csv").write_text("prompt,image\na,red.png\nb,gone.png\nc,text.png\nd,.\n")
    told = folder.refusal(prompts_from="rows.csv").splitlines()
    unread = "is no picture that Pillow reads: save it as PNG, JPEG or WebP"
    assert told == [
        "rows.csv:3: image = gone.png: gone.png: there is no such file: correct it, or put the file there",
        f"rows.csv:4: image = text.png: text.png: {unread}",
        f"rows.csv:5: image = .: {folder.path}: is no plain file: name the file itself",
    ]
    assert [one.image for one in folder.asked(prompts_from="rows.csv", on_bad_row="skip")] == [red]
    assert folder.reading.skipped == 3


def test_a_manifest_that_names_no_usable_picture_is_refused_with_each_place(folder: Folder) -> None:
    told = folder.refusal(prompts=["x", {"prompt": "y", "image": "gone.png"}])
    assert told.startswith("m.yaml:1:")
    assert "prompts[1].image = " in told
    assert told.endswith("there is no such file: correct it, or put the file there")
    told = folder.refusal(prompts=["x", "y"], settings={"image": "photos/{id}.png"})
    assert "settings.image = " in told
    assert "the line has no id for {id}: give the line one, or write the file's name" in told
    told = folder.refusal(prompts=[{"prompt": "x", "image": "https://a.b/c.png"}])
    assert "is an address: download the picture, and name its file" in told


def test_a_sweep_tries_each_picture_with_every_prompt(folder: Folder) -> None:
    red, blue = folder.picture("red.png"), folder.picture("blue.png", "blue")
    asked = folder.asked(prompts=["a", "b"], sweep={"image": ["red.png", "blue.png"]})
    assert [(one.prompt, one.image) for one in asked] == [("a", red), ("a", blue), ("b", red), ("b", blue)]


def test_settings_about_pictures_count_where_there_is_one_and_nowhere_else(folder: Folder) -> None:
    folder.picture("red.png")
    lines = ["a", {"prompt": "b", "image": "red.png"}]
    with_none, with_one = folder.asked(prompts=lines, settings={"strength": 0.4, "fit": "pad"})
    assert (with_none.strength, with_none.fit) == (None, "crop")
    assert (with_one.strength, with_one.fit) == (0.4, "pad")
    plain = folder.asked(prompts=["a"])
    assert with_none.image_id == plain[0].image_id


def test_the_same_contents_under_another_name_are_the_same_image(folder: Folder) -> None:
    folder.picture("red.png")
    folder.picture("other/name.png")
    first, second = (
        folder.asked(prompts=[{"prompt": "a", "image": name}])[0] for name in ("red.png", "other/name.png")
    )
    assert first.image_id == second.image_id


def test_alpha_frames_and_other_sizes_are_counted_and_told_once_each(folder: Folder) -> None:
    folder.picture("clear.png", mode="RGBA")
    folder.picture("large.png", "blue", size=(96, 64))
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("blue", "red")]
    frames[0].save(folder.path / "moves.gif", save_all=True, append_images=frames[1:])
    lines = [{"prompt": "x", "image": name} for name in ("clear.png", "large.png", "moves.gif")]
    (folder.path / "rows.csv").write_text("prompt,image,width\na,large.png,96\nb,clear.png,\n")
    folder.asked(prompts=lines, prompts_from="rows.csv")
    assert list(folder.reading.pictures.told()) == [
        "2 lines with a picture that has an alpha channel: it is laid on white, a mask on black",
        "1 line with a picture of several frames: the first is taken",
        "1 line with a picture of another size than is painted: fit: crop",
    ]


def test_pictures_of_a_sweep_are_counted_once_each_however_many_lines_have_them(folder: Folder) -> None:
    folder.picture("{odd}/clear.png", mode="RGBA", size=(96, 64))
    folder.picture("large.png", "blue", size=(96, 64))
    folder.asked(
        prompts=["a", "b"], sweep={"image": ["{{odd}}/clear.*", "large.png"], "fit": ["crop", "pad"]}
    )
    assert list(folder.reading.told()) == [
        "1 value of `sweep` with a picture that has an alpha channel: it is laid on white, a mask on black",
        "2 values of `sweep` with a picture of another size than is painted: fit: crop",
        "2 values of `sweep` with a picture of another size than is painted: fit: pad",
    ]
    wide = {"image": ["large.png"], "width": [96]}
    folder.asked(prompts=["a"], sweep=wide, settings={"image": "{{odd}}/clear.png"})
    assert list(folder.reading.told()) == []


def test_a_picture_of_settings_is_that_of_every_row(folder: Folder) -> None:
    red = folder.picture("red.png")
    (folder.path / "rows.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    asked = folder.asked(prompts_from="rows.jsonl", settings={"image": "red.png"})
    assert [(one.prompt, one.image) for one in asked] == [("a", red), ("b", red)]


def test_a_manifest_of_a_mapping_of_names_says_what_it_expects(folder: Folder) -> None:
    with pytest.raises(ManifestError, match=r"prompts\[0\].image"):
        folder.asked(prompts=[{"prompt": "a", "image": {"file": "red.png"}}])
