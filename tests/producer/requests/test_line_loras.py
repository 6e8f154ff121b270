"""The files of lines' LoRAs, as a submission copies or references them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from jobs.adapters import loras_of
from jobs.settings import Settings
from producer.prompt_files.reading import Reading
from producer.requests.prepared import Prepared, prepare
from tests.lora_headers import lora_of, stable_diffusion

INK, CONV = "loras/ink.safetensors", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    stable_diffusion(Path("sd"))
    lora_of(Path(INK))
    lora_of(Path("loras/grain.safetensors"), CONV)
    Path("p.csv").write_text("prompt,loras\na,grain:0.5\n")
    Path("m.yaml").write_text(
        "name: a\nmodel: ./sd\ninputs: reference\nlora_folder: loras\nprompts_from: p.csv\n"
        "prompts: [{prompt: a fox, syntax: a1111}, {prompt: 'a <lora:ink:1>', syntax: a1111}]\n"
        "settings: {height: 64, width: 64}\n"
    )
    return prepare(Path("m.yaml"), Settings())


def test_each_file_is_taken_in_once_its_line_was_read(prepared: Prepared) -> None:
    assert prepared.inputs.total()[0] == 0
    reading = Reading()
    plain, tagged, row = (entry for _, entry in prepared.entries(reading=reading))
    hashes = {
        hashlib.sha256(Path(file).read_bytes()).hexdigest(): str(Path(file).absolute())
        for file in (INK, "loras/grain.safetensors")
    }
    assert hashes == dict(reading.adapters)
    assert list(plain.inputs) == []
    assert prepared.referenced([plain, tagged, row]) == hashes
    assert [one.scale for one in loras_of(row.request.loras)] == [0.5]


def test_only_the_files_of_images_that_are_rendered_are_copied(prepared: Prepared) -> None:
    Path("m.yaml").write_text(Path("m.yaml").read_text().replace("inputs: reference\n", ""))
    copied = prepare(Path("m.yaml"), Settings())
    read = (entry for _, entry in copied.entries())
    assert copied.referenced([next(read), next(read)]) == {}
    rendered = {file.sha256 for file in copied.inputs.wanted()}
    list(read)  # grain is named after ink was marked
    assert {file.sha256 for file in copied.inputs.wanted()} == rendered
    assert rendered == {hashlib.sha256(Path(INK).read_bytes()).hexdigest()}
    copied.inputs.want_none()
    list(copied.entries())
    assert copied.inputs.total() == (0, 0)


def test_a_changed_file_makes_another_submission(prepared: Prepared) -> None:
    list(prepared.entries())
    before = prepared.inputs.digest()
    Path(INK).write_bytes(Path(INK).read_bytes()[:-1] + b"\x01")
    list((again := prepare(Path("m.yaml"), Settings())).entries())
    assert again.inputs.digest() != before
