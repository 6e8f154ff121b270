"""Pictures become one manifest, or are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import ManifestError
from producer.importing.imported import import_pictures
from producer.importing.manifest_text import manifest_text
from producer.importing.pictures import pictures_in
from producer.manifest.manifest import load_manifest
from tests.producer.importing.picture_files import png


def a1111(file: Path, prompt: str = "a barn", seed: int = 1, model: str = "barns", more: str = "") -> Path:
    settings = f"Steps: 20, Sampler: Euler, CFG scale: 6, Seed: {seed}, Size: 64x64, Model: {model}, RNG: CPU"
    return png(file, {"parameters": f"{prompt}\n{settings}{more}"})


def test_what_all_share_stands_in_settings(tmp_path: Path) -> None:
    files = [a1111(tmp_path / f"{n}.png", f"barn {n}", n) for n in range(3)]
    text = manifest_text(import_pictures(files, model="shapes"), "barns")
    assert text == (
        "# Written by `imagemill import` from 3 pictures.\n"
        "name: barns\n"
        "model: shapes\n"
        "settings:\n"
        "  height: 64\n"
        "  width: 64\n"
        "  num_inference_steps: 20\n"
        "  guidance_scale: 6.0\n"
        "  scheduler: Euler\n"
        "prompts:\n"
        + "".join(f"  # {files[n]} (A1111)\n  - prompt: barn {n}\n    seed: {n}\n" for n in range(3))
    )


def test_a_setting_that_one_picture_lacks_is_not_shared(tmp_path: Path) -> None:
    one = a1111(tmp_path / "1.png")
    two = png(
        tmp_path / "2.png", {"parameters": "a mill\nSteps: 20, Seed: 2, Size: 64x64, Model: barns, RNG: CPU"}
    )
    text = manifest_text(import_pictures([one, two]), "again")
    assert "settings:\n  height: 64\n  width: 64\n  num_inference_steps: 20\nprompts:" in text
    assert "# no sampler: its file tells none: the model's own counts until `scheduler` is given" in text


def test_a_loss_is_told_beside_its_prompt_and_one_of_all_at_the_top(tmp_path: Path) -> None:
    files = [
        a1111(tmp_path / "1.png", more=", Clip skip: 2"),
        a1111(tmp_path / "2.png", "b", more=", Clip skip: 2"),
    ]
    files.append(a1111(tmp_path / "3.png", "c", more=", Clip skip: 2, ENSD: 4"))
    imported = import_pictures(files, model="instant")
    lines = manifest_text(imported, "again").split("\n")
    assert lines[1].startswith("# Every picture: Clip skip: 2: ")
    [at] = [number for number, line in enumerate(lines) if "ENSD: 4" in line]
    assert "3.png" in lines[at - 1] and "prompt: c" in "".join(lines[at : at + 3])
    clip, ensd = imported.messages()
    assert clip.startswith(f"{files[0]} and 2 more: Clip skip: 2: ")
    assert ensd.startswith(f"{files[2]}: ENSD: 4: ")


def test_without_a_model_that_can_be_found_a_stand_in_is_written_and_named(tmp_path: Path) -> None:
    imported = import_pictures([a1111(tmp_path / "1.png")])
    text = manifest_text(imported, "again")
    assert "model: instant\n" in text
    assert "# The pictures name a model, barns, and not where it is" in text
    [message] = imported.messages()
    assert message.startswith("model barns: the pictures do not tell where it is: give --model")


def test_pictures_of_several_models_need_a_choice(tmp_path: Path) -> None:
    files = [a1111(tmp_path / f"{n}.png", model=model) for n, model in enumerate(["x", "y", "x"])]
    with pytest.raises(
        ManifestError, match=r"2 models.*--only NAME.*--model MODEL.*x, 2 pictures; y, 1 picture$"
    ):
        import_pictures(files)
    assert [one.file for one in import_pictures(files, only="x").recipes] == [str(files[0]), str(files[2])]
    assert len(import_pictures(files, model="shapes").recipes) == 3
    with pytest.raises(ManifestError, match="--only z: no picture is of it: x, 2 pictures"):
        import_pictures(files, only="z")


def test_a_hash_that_one_picture_lacks_is_no_other_model(tmp_path: Path) -> None:
    files = [a1111(tmp_path / "1.png"), a1111(tmp_path / "2.png", more=", Model hash: 12ab")]
    assert str(import_pictures(files).model) == "barns (hash 12ab)"


def test_a_model_or_name_that_no_manifest_may_have_is_refused(tmp_path: Path) -> None:
    file = a1111(tmp_path / "1.png")
    with pytest.raises(ManifestError, match="--model x: is no model: use a built-in one"):
        import_pictures([file], model="x")
    with pytest.raises(ManifestError, match='name = "No Way": must be 1 to 64'):
        manifest_text(import_pictures([file]), "No Way")


def test_pictures_that_tell_nothing_are_named_and_the_rest_is_written(tmp_path: Path) -> None:
    bare, good = png(tmp_path / "bare.png", {}), a1111(tmp_path / "good.png")
    imported = import_pictures([bare, good, tmp_path / "none.png"], model="instant")
    assert (len(imported.recipes), imported.exit_code) == (1, 1)
    assert imported.messages() == [
        f"{bare}: holds no text: nothing tells how it was made",
        f"{tmp_path / 'none.png'}: cannot be read: No such file or directory",
    ]
    with pytest.raises(ManifestError, match=r"no picture tells how it was made:\n.*bare\.png: holds no text"):
        import_pictures([bare])


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no picture"):
        import_pictures([tmp_path])


def test_folders_are_read_in_the_order_of_numbers(tmp_path: Path) -> None:
    for name in (
        "10.png",
        "2.png",
        "b/1.JPG",
        "a.webp",
        ".hidden/3.png",
        "note.txt",
        "preview.jpg",
        "job.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(file.relative_to(tmp_path)) for file in pictures_in([tmp_path])]
    assert names == ["2.png", "10.png", "a.webp", "b/1.JPG"]


@pytest.mark.parametrize(
    "text",
    [
        "evil\nmodel: x", "a # b", "\u2028x", "tab\there", "x\x1b[31m", "a: b\n  - c\n", " lead\n trail ",
        "'\"",        "|", "\ufeff", "\x85", "\r",
    ],
)  # fmt: skip
def test_no_text_of_a_picture_changes_the_manifest_around_it(tmp_path: Path, text: str) -> None:
    more = f", {text.replace(chr(10), ' ')}: {text.replace(chr(10), ' ')}"
    file = a1111(tmp_path / f"{text.replace('/', '_')}.png", f"{text}!", model="m", more=more)
    plain = a1111(tmp_path / "plain.png", "plain", model="m")
    written = tmp_path / "again.yaml"
    written.write_text(manifest_text(import_pictures([file, plain]), "again"), "utf-8")
    manifest = load_manifest(written)
    assert [getattr(line, "prompt", line) for line in manifest.prompts] == [f"{text}!", "plain"]
    assert (manifest.model, manifest.name) == ("instant", "again")


def test_messages_obey_no_terminal(tmp_path: Path) -> None:
    graph = '{"1": {"class_type": "My\\u001b[2JSampler\\n", "inputs": {}}}'
    refused = png(tmp_path / "graph.png", {"prompt": graph})
    named = a1111(tmp_path / "a\x1b[2J.png", model="b\x1b[2J\u202e", more=", x\x1b[2J: \x9b2J")
    imported = import_pictures([refused, named])
    assert all(message.isprintable() for message in imported.messages())
    assert "painted by My\\x1b[2JSampler\\n (node 1)" in imported.messages()[0]
    assert manifest_text(imported, "again").replace("\n", "").isprintable()


def test_marks_that_turn_a_text_around_are_escaped_in_a_manifest(tmp_path: Path) -> None:
    prompt = "a \u202ekcab\u202c way \u2067in\u2069 \\\u200f, \u05d0 stays"
    written = tmp_path / "again.yaml"
    written.write_text(manifest_text(import_pictures([a1111(tmp_path / "1.png", prompt)]), "again"), "utf-8")
    text = written.read_text("utf-8")
    assert text.replace("\n", "").isprintable() and "\u05d0 stays" in text
    assert [getattr(line, "prompt", line) for line in load_manifest(written).prompts] == [prompt]
