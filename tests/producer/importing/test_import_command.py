"""`imagemill import` prints a manifest that `imagemill plan` takes."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import pytest

from jobs.errors import ManifestError
from producer import cli
from tests.lora_headers import lora_of
from tests.producer.importing.picture_files import png

LAMP = """a (brass:1.3) lamp, night
Negative prompt: dim, <lora:dust:0.4>
Steps: 22, Sampler: DPM++ 2M Karras, CFG scale: 5.5, Seed: 4242, Size: 384x512, Model hash: 00ff00ff, \
Model: lamps_v1, Clip skip: 2, Version: v1.9.4"""


def call(*arguments: object) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(cli.command, [str(argument) for argument in arguments])
    if isinstance(result.exception, ManifestError):
        raise result.exception
    return result


def test_a_picture_of_another_program_becomes_a_manifest_that_plans(tmp_path: Path) -> None:
    imported = call("import", png(tmp_path / "lamp.png", {"parameters": LAMP}, (384, 512)))
    assert imported.exit_code == 0
    file = tmp_path / "again.yaml"
    file.write_text(imported.stdout, "utf-8")
    planned = call("plan", "--json", file)
    assert planned.exit_code == 0
    [group] = json.loads(planned.stdout)["groups"]
    assert (group["height"], group["width"], group["num_inference_steps"], group["images"]) == (
        512,
        384,
        22,
        1,
    )
    shown = call("plan", file).stdout
    assert '22 steps DPM++ 2M Karras, guidance 5.5, seed 4242, "a (brass:1.3) lamp, night"' in shown
    assert "a stand-in: its pictures are blocks of colour" in shown


def test_loras_of_prompts_are_looked_for_in_a_folder_that_the_manifest_names(tmp_path: Path) -> None:
    text = LAMP.replace("lamp, night", "lamp, night <lora:dust:0.4> <lora:brass v2>").replace(
        ", <lora:dust:0.4>\n", "\n"
    )
    imported = call("import", png(tmp_path / "lamp.png", {"parameters": text}, (384, 512)))
    assert "put brass v2.safetensors, dust.safetensors into this folder" in imported.stdout
    assert "\nlora_folder: loras\n" in imported.stdout
    file = tmp_path / "again.yaml"
    file.write_text(imported.stdout, "utf-8")
    with pytest.raises(ManifestError, match="loras: there is no such folder: correct it"):
        call("plan", file)
    lora_of(tmp_path / "loras/dust.safetensors")
    lora_of(tmp_path / "loras/brass v2.safetensors", "conv_in")
    assert '"a (brass:1.3) lamp, night"' in call("plan", file).stdout


def test_each_loss_is_a_line_with_the_file_and_the_remedy(tmp_path: Path) -> None:
    file = png(tmp_path / "lamp.png", {"parameters": LAMP}, (384, 512))
    lines = call("import", file).stderr.splitlines()
    whats = [line.removeprefix(f"{file}: ").partition(": ")[0] for line in lines]
    assert whats == [
        "Clip skip",
        "<lora:dust:0.4>",
        "(brass:1.3)",
        "noise of a GPU",
        "model lamps_v1 (hash 00ff00ff)",
    ]
    assert "give --model" in lines[-1]


def test_the_exit_status_says_whether_every_picture_is_there(tmp_path: Path) -> None:
    good = png(tmp_path / "lamp.png", {"parameters": LAMP}, (384, 512))
    bare = png(tmp_path / "bare.png", {})
    result = call("import", good, bare, "--name", "lamps", "--model", "instant")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == f"{bare}: holds no text: nothing tells how it was made"
    assert result.stdout.count("- prompt: ") == 1
    with pytest.raises(ManifestError, match="no picture tells how it was made"):
        call("import", bare)


def test_a_manifest_is_utf8_wherever_it_is_written(tmp_path: Path) -> None:
    file = png(tmp_path / "狐.png", {"parameters": "ein Füchslein 狐 🦊\nSteps: 20, Sampler: Euler, Seed: 4"})
    result = call("import", file)
    assert "ein Füchslein 狐 🦊" in result.stdout_bytes.decode("utf-8")
