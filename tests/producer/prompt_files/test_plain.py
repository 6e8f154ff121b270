"""A line of .txt paints what kohya's scripts or A1111's would, or its flag is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ManifestError
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines


def _read(file: Path, contents: str | bytes, **source: Any) -> tuple[list[Line], Reading]:
    file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    found = {"name": "cats", "model": "instant", "prompts_from": [{"file": str(file), **source}]}
    reading = Reading()
    return list(lines(Manifest.from_json(found), reading)), reading


def _refused(file: Path, contents: str, **source: Any) -> str:
    with pytest.raises(ManifestError) as caught:
        _read(file, contents, **source)
    return str(caught.value).removeprefix(f"{file}:1: ")


def test_a1111s_prompts_need_no_quotes(tmp_path: Path) -> None:
    contents = (
        "--prompt a photo of a beetle --negative_prompt wings, blurry --steps 20\n"
        "--steps 20 --prompt an owl, --cfg_scale 3\n"
        "--prompt a \"red one\" in 'a box' --seed -1\n"
        "--negative_prompt --prompt a hen\n"
    )
    with pytest.raises(ManifestError, match="4: --negative_prompt: has no value"):
        _read(tmp_path / "p.txt", contents)
    given, _ = _read(tmp_path / "p.txt", "\n".join(contents.split("\n")[:3]))
    assert [line.prompt for line in given] == ["a photo of a beetle", "an owl,", "a red one in a box"]
    assert given[0].settings == {"negative_prompt": "wings, blurry", "num_inference_steps": 20}
    assert given[1].settings == {"num_inference_steps": 20, "guidance_scale": 3.0}
    assert given[2].seeds is None


def test_a1111s_batches_are_pictures_of_the_prompt(tmp_path: Path) -> None:
    given, _ = _read(
        tmp_path / "p.txt",
        "--prompt a --batch_size 4 --seed 7\n--prompt b --batch_size 2 --n_iter 3\n--prompt c --n_iter 3\n",
    )
    assert [line.images for line in given] == [4, 6, 3]
    assert given[0].seeds == range(7, 11)
    for flags, error in [
        ("--n_iter 2 --batch_size x", "--batch_size = x: must be a whole number"),
        ("--n_iter 2 --batch_size 0", "--n_iter = 0: must be at least 1"),
    ]:
        assert _refused(tmp_path / "p.txt", f"--prompt a {flags}\n").startswith(error)


def test_flags_that_change_no_picture_are_dropped_and_counted(tmp_path: Path) -> None:
    given, reading = _read(
        tmp_path / "p.txt",
        '--prompt a --do_not_save_grid true --outpath_samples "out/x"\n'
        "--do_not_save_samples true --do_not_save_grid false --outpath_grids g --prompt b\n"
        "--prompt_for_display x --prompt c --restore_faces false --tiling no --subseed 3 "
        '--subseed_strength 0 --seed_resize_from_w 0 --seed_resize_from_h -1 --styles "" \n'
        "a fox --f fox.png --F other.png --s 20\n",
    )
    assert [(line.prompt, dict(line.settings)) for line in given] == [
        ("a", {}), ("b", {}), ("c", {}), ("a fox", {"num_inference_steps": 20}),
    ]  # fmt: skip
    assert reading.dropped_flags == {
        "--do_not_save_grid": 2, "--do_not_save_samples": 1, "--f": 2, "--outpath_grids": 1,
        "--outpath_samples": 1, "--prompt_for_display": 1, "--restore_faces": 1, "--seed_resize_from_h": 1,
        "--seed_resize_from_w": 1, "--styles": 1, "--subseed": 1, "--subseed_strength": 1, "--tiling": 1,
    }  # fmt: skip
    (said,) = reading.left_out()
    assert said.startswith(
        "flags that change no picture: --do_not_save_grid (2), --do_not_save_samples (1), "
    )


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("--prompt a --sd_model x.safetensors", "--sd_model: names a model, and a manifest has one: "),
        ("--prompt a --styles cinematic", "--styles: names styles that are kept in A1111: write their text"),
        ("--prompt a --sampler_index 3", "--sampler_index: is a place in A1111's list of samplers: write "),
        ("--prompt a --subseed 1 --subseed_strength 0.5", "--subseed_strength: mixes the noise of two seeds"),
        ("--prompt a --seed_resize_from_w 512", "--seed_resize_from_w: takes the noise of another size"),
        ("--prompt a --restore_faces TRUE", "--restore_faces: paints faces again"),
        ("--prompt a --tiling true", "--tiling: makes pictures that tile"),
        ("--prompt a --hires 2", "--hires: no such flag: use --prompt, "),
        ("--prompt a cat's tail --steps 2", "No closing quotation: put the whole prompt in double quotes"),
        ("a --t 0.5", "--t: is the strength of an image to begin with"),
        ("a --ow 1024 --oh 1024", "--ow: is SDXL's conditioning: give original_size"),
        ("a --am 0.5,1", "--am: weighs LoRA networks: remove it"),
        ("a --DSR 0.5", "--dsr: is of Deep Shrink: remove it"),
        ("a --fs 3", "--fs: is the flow's shift"),
    ],
)
def test_a_flag_that_would_change_the_picture_otherwise_is_refused_by_name(
    tmp_path: Path, line: str, error: str
) -> None:
    assert _refused(tmp_path / "p.txt", f"{line}\n").startswith(error)


def test_lines_that_begin_with_a_hash_are_counted_as_comments(tmp_path: Path) -> None:
    given, reading = _read(
        tmp_path / "p.txt", "#1 in the list\na fox\n  # more\n\na hen # is no comment\n#\n"
    )
    assert [line.prompt for line in given] == ["a fox", "a hen # is no comment"]
    assert reading.comments == 3
    assert list(reading.left_out()) == ["3 lines beginning with # (comments)"]


def test_a_file_that_is_one_prompt_is_taken_as_it_is(tmp_path: Path) -> None:
    contents = '\ufeff\r\n  # Two lines --n no flag,\r\n\r\nand "a third".\n\n'
    (line,), reading = _read(tmp_path / "07.b.txt", contents, one_per_file=True)
    assert (line.prompt, line.id) == ('# Two lines --n no flag,\n\nand "a third".', "07.b")
    assert reading.comments == 0
    assert _refused(tmp_path / "p.txt", " \n\n", one_per_file=True).endswith(
        "p.txt: holds no prompt: write one into it, or take it out of `prompts_from`"
    )
    (line,), _ = _read(tmp_path / "p.txt", "é".encode("utf-16-le"), one_per_file=True, encoding="utf-16")
    assert line.prompt == "é"
