"""imagemill's own pictures: the requests come back, and a manifest of them asks for nothing new."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.inputs.inputs import kept_path
from jobs.models.models import BUILT_IN
from jobs.output.output import Output
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.importing.imported import import_pictures
from producer.importing.manifest_text import manifest_text
from producer.importing.own import read_request
from producer.importing.programs import read_recipe
from producer.importing.recipe import Untold
from producer.manifest.manifest import load_manifest
from producer.plan.plan import plan_submission
from producer.requests.expand import identify
from producer.requests.prepared import prepare
from tests.embedding_files import embedding, listed, vectors
from tests.lora_headers import lora_of
from tests.rendered_output import rendered
from worker.encode import encode

__all__ = ["rendered"]
REQUEST = ImageRequest(
    prompt="a fox", negative_prompt="fog", seed=5, height=64, width=72, num_inference_steps=3,
    guidance_scale=2.5, scheduler="Euler", model="instant", revision="instant-1",
)  # fmt: skip


def again(folder: Path, *pictures: Path) -> Path:
    """The manifest of pictures, in a file."""
    file = folder / "again.yaml"
    file.write_text(manifest_text(import_pictures(pictures), "again"), "utf-8")
    return file


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_an_output_is_asked_for_again_without_a_new_image(
    rendered: Callable[..., Output], tmp_path: Path, image_format: str
) -> None:
    prompts = [
        "a plain fox",
        {"prompt": "two\nlines, été 🦊", "negative_prompt": "no: 12", "seed": 7, "scheduler": "Euler a"},
        {"prompt": "sized", "height": 72, "guidance_scale": 3, "images_per_prompt": 3},
        {"prompt": "", "num_inference_steps": 4},
    ]
    output = rendered(6, prompts=prompts, image_format=image_format, image_quality=80)
    file = again(tmp_path, output.path)
    file.write_text(f"output: {output.path}\n" + file.read_text("utf-8"), "utf-8")
    plan = plan_submission(prepare(file, Settings()), Settings())
    assert (plan.new, plan.changed, plan.orphaned, plan.duplicates) == (0, 0, 0, 0)
    assert sum(group.images for group in plan.survey.groups) == 6


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_each_setting_of_a_request_comes_back(tmp_path: Path, image_format: str) -> None:
    for change in (
        {"precision": "fp32"}, {"image_quality": 70}, {"scheduler": "DPM++ 2M Karras"},
        {"guidance_scale": 1.0},
        {"arguments": '{"clip_skip":1,"words":["a","é"]}'}, {"prompt": "no"}, {"prompt": "- 010: {x} # y"},
        {"prompt": "a\x85b"}, {"prompt": "a\u2028b"}, {"prompt": "a\rb"}, {"prompt": "a\n b\n\nc"},
        {"prompt": "a\u202eb\\\u2066\n"},
        {"seed": 2**63 - 1}, {"negative_prompt": ""},
        {"model": "shapes", "revision": BUILT_IN["shapes"].revision},
    ):  # fmt: skip
        request = replace(REQUEST, image_format=image_format, **change)  # type: ignore[arg-type]
        picture = tmp_path / f"a.{image_format}"
        picture.write_bytes(encode(np.zeros((64, 72, 3), np.uint8), request))
        manifest = load_manifest(again(tmp_path, picture))
        [(image_id, entry)] = identify(manifest, manifest.resolve_model())
        assert (entry.request, image_id) == (request, request.image_id)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.booleans())
def test_any_prompt_comes_back(tmp_path_factory: pytest.TempPathFactory, prompt: str, negative: bool) -> None:
    folder = tmp_path_factory.getbasetemp()
    request = replace(REQUEST, **{"negative_prompt" if negative else "prompt": prompt})
    (folder / "any.png").write_bytes(encode(np.zeros((64, 72, 3), np.uint8), request))
    manifest = load_manifest(again(folder, folder / "any.png"))
    [(_, entry)] = identify(manifest, manifest.resolve_model())
    assert entry.request == request


@pytest.mark.parametrize(
    ("label", "revision", "model"),
    [
        ("org/name", "c" * 40, "org/name"),
        ("my-model", "sha256:" + "a" * 64, "./my-model"),
        ("/etc/my-model", "sha256:" + "a" * 64, "./my-model"),
        ("/etc/my-model", "c" * 40, "./my-model"),
        ("barns.safetensors", "sha256:" + "a" * 64, "./barns.safetensors"),
        ("shapes", BUILT_IN["shapes"].revision, "shapes"),
    ],
)
def test_the_model_is_what_a_manifest_may_name(label: str, revision: str, model: str) -> None:
    draft = read_request(replace(REQUEST, model=label, revision=revision), Path("a.png"))
    assert (draft.model.model, draft.model.revision) == (model, revision)


def test_initial_latents_are_found_in_the_output_or_named(tmp_path: Path) -> None:
    sha256 = "d" * 64
    shard, inputs = tmp_path / "out" / "00000", tmp_path / "out" / ".imagemill" / "inputs"
    shard.mkdir(parents=True)
    inputs.mkdir(parents=True)
    (inputs / f"{sha256}.npy").touch()
    request = replace(REQUEST, init_latents=sha256)
    inside, outside = shard / "a.png", tmp_path / "a.png"
    inside.write_bytes(encode(np.zeros((64, 72, 3), np.uint8), request))
    shutil.copy(inside, outside)
    assert read_recipe(inside).settings["init_latents"] == str(inputs / f"{sha256}.npy")
    [loss] = read_recipe(outside).losses
    assert "write `init_latents: FILE`" in str(loss)


def test_loras_are_found_in_the_output_or_named(tmp_path: Path) -> None:
    kept = lora_of(tmp_path / "lora.safetensors")
    sha256 = hashlib.sha256(kept.read_bytes()).hexdigest()
    shard, file = tmp_path / "out/00000", kept_path(tmp_path / "out/.imagemill/inputs", sha256)
    shard.mkdir(parents=True)
    file.parent.mkdir(parents=True)
    kept.rename(file)
    request = replace(REQUEST, loras=f'[{{"name":"ink","sha256":"{sha256}","scale":0.5}}]')
    inside, outside = shard / "a.png", tmp_path / "a.png"
    inside.write_bytes(encode(np.zeros((64, 72, 3), np.uint8), request))
    shutil.copy(inside, outside)
    assert read_recipe(inside).settings["loras"] == [{"file": str(file), "scale": 0.5}]
    [entry] = prepare(again(tmp_path, inside), Settings()).entries()
    assert entry[0] == request.image_id
    [loss] = read_recipe(outside).losses
    assert "write `loras: [{file: FILE, scale: 0.5}]` beside the prompt" in str(loss)


def test_textual_inversions_are_found_in_the_output_or_named(tmp_path: Path) -> None:
    contents = embedding(emb_params=vectors(2, 16))
    sha256 = hashlib.sha256(contents).hexdigest()
    shard, file = tmp_path / "out/00000", kept_path(tmp_path / "out/.imagemill/inputs", sha256)
    shard.mkdir(parents=True)
    file.parent.mkdir(parents=True)
    file.write_bytes(contents)
    request = replace(REQUEST, prompt="a <toy>", textual_inversions=listed(("<toy>", sha256)))
    inside, outside = shard / "a.png", tmp_path / "a.png"
    inside.write_bytes(encode(np.zeros((64, 72, 3), np.uint8), request))
    shutil.copy(inside, outside)
    assert read_recipe(inside).settings["textual_inversions"] == [{"file": str(file), "token": "<toy>"}]
    [entry] = prepare(again(tmp_path, inside), Settings()).entries()
    assert entry[0] == request.image_id
    [loss] = read_recipe(outside).losses
    assert "write `textual_inversions: [{file: FILE, token: <toy>}]` beside the prompt" in str(loss)


@pytest.mark.parametrize(
    ("name", "revision", "written"),
    [
        ("clip", "sha256:" + "c" * 64, "image_encoder: ./clip}`"),
        (
            "h94/IP-Adapter",
            "d" * 40 + ":models/image_encoder",
            "image_encoder: {model: h94/IP-Adapter, subfolder: models/image_encoder, revision: "
            + "d" * 40
            + "}}`",
        ),
        ("org/clip", "d" * 40, "image_encoder: {model: org/clip, revision: " + "d" * 40 + "}}`"),
    ],
)
def test_an_ip_adapter_is_left_out_with_the_line_that_names_its_image_encoder(
    tmp_path: Path, name: str, revision: str, written: str
) -> None:
    listed_one = {"name": "ip", "sha256": "a" * 64, "image_encoder": name, "revision": revision}
    request = replace(REQUEST, ip_adapter=json.dumps([listed_one]), ip_adapter_image="b" * 64)
    file = tmp_path / "a.png"
    file.write_bytes(encode(np.zeros((64, 72, 3), np.uint8), request))
    [loss] = read_recipe(file).losses
    assert "write `ip_adapter: {file: FILE, " + written in str(loss)


def test_a_request_with_a_value_that_none_has_is_refused() -> None:
    for change in ({"height": "64"}, {"seed": -1}, {"prompt": "a\0"}, {"scheduler": "x"}, {"arguments": "["}):
        with pytest.raises(Untold, match=f"its request says {next(iter(change))} = "):
            read_request(replace(REQUEST, **change), Path("a.png"))  # type: ignore[arg-type]


def test_pictures_that_were_painted_from_are_found_in_the_output_or_named(tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    Image.new("RGB", (72, 64), "red").save(file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    shard, inputs = tmp_path / "{out}" / "00000", tmp_path / "{out}" / ".imagemill" / "inputs"
    kept = kept_path(inputs, sha256)
    for folder in (shard, kept.parent):
        folder.mkdir(parents=True)
    shutil.copy(file, kept)
    request = replace(REQUEST, image=sha256, strength=0.5, fit="pad")
    inside, outside = shard / "a.png", tmp_path / "a.png"
    inside.write_bytes(encode(np.zeros((64, 72, 3), np.uint8), request))
    shutil.copy(inside, outside)
    manifest = load_manifest(again(tmp_path, inside))
    [(_, entry)] = identify(manifest, manifest.resolve_model())
    assert entry.request == request
    [loss] = read_recipe(outside).losses
    assert f"image with SHA-256 {sha256}" in str(loss)
    assert "write `image: FILE` beside the prompt" in str(loss)
