"""InvokeAI, SwarmUI, Fooocus, NovelAI and Draw Things: their settings are read, the rest is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from producer.importing.programs import read_recipe
from producer.importing.recipe import Recipe, Untold
from tests.producer.importing.picture_files import chunk, commented, png, with_chunks

Read = Callable[[dict[str, str]], Recipe]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a picture of 512x768 with these texts."""
    return lambda texts: read_recipe(png(tmp_path / "a.png", texts, (512, 768)))


def whats(recipe: Recipe) -> list[str]:
    return [loss.what for loss in recipe.losses]


INVOKE = {
    "generation_mode": "txt2img", "positive_prompt": "a barn", "negative_prompt": "fog", "width": 512,
    "height": 768, "seed": 4, "rand_device": "cpu", "cfg_scale": 6.5, "steps": 30, "scheduler": "dpmpp_2m_k",
    "model": {"key": "k", "hash": "blake3:12", "name": "barns", "base": "sd-1", "type": "main"},
    "controlnets": [], "loras": [], "seamless_x": False, "clip_skip": 0, "app_version": "5.0.0",
}  # fmt: skip


def test_invokeai(read: Read) -> None:
    recipe = read({"invokeai_metadata": json.dumps(INVOKE)})
    assert (recipe.program, recipe.prompt, recipe.model.name) == ("InvokeAI", "a barn", "barns")
    assert recipe.settings == {
        "negative_prompt": "fog", "width": 512, "height": 768, "seed": 4, "guidance_scale": 6.5,
        "num_inference_steps": 30, "scheduler": "DPM++ 2M Karras",
    }  # fmt: skip
    assert recipe.losses == ()


def test_what_invokeai_adds_is_named(read: Read) -> None:
    said = INVOKE | {
        "generation_mode": "img2img", "loras": [{"weight": 0.5}], "scheduler": "tcd", "rand_device": "cuda",
        "model": {"model_name": "barns"},
    }  # fmt: skip
    recipe = read({"invokeai_metadata": json.dumps(said)})
    assert recipe.model.name == "barns"
    assert whats(recipe) == [
        "sampler: tcd", "loras: [{'weight': 0.5}]", "generation_mode: img2img", "rand_device: cuda",
    ]  # fmt: skip


def test_invokeai_2(read: Read) -> None:
    image = {
        "prompt": [{"prompt": "a barn [fog], snow [people]", "weight": 1.0}], "steps": 30, "cfg_scale": 6.5,
        "height": 768, "width": 512, "seed": 4, "sampler": "k_euler_a", "type": "txt2img", "variations": [],
        "threshold": 0, "postprocessing": [{"type": "gfpgan"}],
    }  # fmt: skip
    said = {"model_weights": "barns", "model_hash": "f" * 64, "image": image}
    recipe = read({"sd-metadata": json.dumps(said)})
    assert (recipe.prompt, recipe.settings["negative_prompt"]) == ("a barn , snow", "fog, people")
    assert (recipe.settings["scheduler"], str(recipe.model)) == ("Euler a", "barns (hash ffffffffff)")
    assert whats(recipe) == ["postprocessing: [{'type': 'gfpgan'}]"]


def test_invokeai_1(read: Read) -> None:
    recipe = read({"Dream": '"a barn [fog]" -s30 -S 4 -W 512 -H 768 -C 6.5 -A k_lms -G0.8'})
    assert (recipe.prompt, recipe.settings) == (
        "a barn",
        {
            "negative_prompt": "fog", "num_inference_steps": 30, "seed": 4, "width": 512, "height": 768,
            "guidance_scale": 6.5, "scheduler": "LMS",
        },
    )  # fmt: skip
    assert whats(recipe) == ["-G0.8"]


SWARM = {
    "prompt": "a barn", "negativeprompt": "fog", "model": "old/barns", "seed": 4, "steps": 30,
    "cfgscale": 6.5, "aspectratio": "2:3", "width": 512, "height": 768, "sampler": "euler_ancestral",
    "scheduler": "normal", "swarm_version": "0.9",
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_swarmui(tmp_path: Path, name: str) -> None:
    text = json.dumps({"sui_image_params": SWARM, "sui_extra_data": {"date": "x"}})
    if name == "a.png":
        file = png(tmp_path / name, {"parameters": text}, (512, 768))
    else:
        file = commented(tmp_path / name, b"UNICODE\0" + text.encode("utf-16-le"), (512, 768))
    recipe = read_recipe(file)
    assert (recipe.program, recipe.prompt, recipe.model.model, recipe.losses) == (
        "SwarmUI",
        "a barn",
        None,
        (),
    )
    assert recipe.settings["scheduler"] == "Euler a"


def test_what_swarmui_adds_or_leaves_out_is_named(read: Read) -> None:
    said = {name: value for name, value in SWARM.items() if name not in ("sampler", "scheduler")}
    recipe = read(
        {"parameters": json.dumps({"sui_image_params": said | {"loras": ["ink"], "variationseed": 3}})}
    )
    assert whats(recipe) == ["loras: ['ink']", "variationseed: 3", "no sampler"]


def test_fooocus(read: Read) -> None:
    said = {
        "prompt": "a barn", "negative_prompt": "", "full_prompt": ["a barn", "cinematic"], "steps": 30,
        "resolution": "(512, 768)", "guidance_scale": 4.0, "sharpness": 2.0, "base_model": "xl.safetensors",
        "base_model_hash": "ab12", "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "seed": "4",
        "refiner_model": "None", "loras": [], "version": "Fooocus v2.5.5",
    }  # fmt: skip
    recipe = read({"parameters": json.dumps(said), "fooocus_scheme": "fooocus"})
    assert (recipe.program, str(recipe.model)) == ("Fooocus", "xl.safetensors (hash ab12)")
    assert recipe.settings == {
        "num_inference_steps": 30, "guidance_scale": 4.0, "scheduler": "DPM++ 2M SDE Karras", "seed": 4,
        "width": 512, "height": 768,
    }  # fmt: skip
    assert whats(recipe) == ["sampler: dpmpp_2m_sde_gpu, schedule: karras", "sharpness: 2.0", "full_prompt"]


def test_novelai(read: Read) -> None:
    said = {
        "prompt": "a barn", "steps": 28, "height": 768, "width": 512, "scale": 5, "seed": 4, "uc": "fog",
        "sampler": "k_euler_ancestral", "noise_schedule": "native", "sm": True,
    }  # fmt: skip
    recipe = read({"Software": "NovelAI", "Description": "a barn", "Comment": json.dumps(said)})
    assert (recipe.program, recipe.settings["scheduler"], whats(recipe)) == (
        "NovelAI",
        "Euler a",
        ["sm: True"],
    )


def test_draw_things(tmp_path: Path) -> None:
    said = {
        "c": "a barn", "uc": "fog", "model": "sd_v1.5_f16.ckpt", "sampler": "DPM++ 2M Karras", "scale": 7,
        "seed": 4, "size": "64x64", "steps": 20, "strength": 1, "lora": [],
    }  # fmt: skip
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/"><exif:UserComment><rdf:Alt>'
        f"<rdf:li>{json.dumps(said)}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF>"
        "</x:xmpmeta>"
    )
    file = with_chunks(tmp_path / "a.png", chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode()))
    recipe = read_recipe(file)
    assert (recipe.program, recipe.prompt, recipe.losses) == ("Draw Things", "a barn", ())
    assert recipe.settings["scheduler"] == "DPM++ 2M Karras"


def test_an_xmp_with_a_document_type_is_not_read(tmp_path: Path) -> None:
    """Its entities could unfold to gigabytes."""
    kind = """<!DOCTYPE x [<!ENTITY e '{"c": "a barn"}'>]>"""
    xmp = f'{kind}<x xmlns:e="e"><e:UserComment>&e;</e:UserComment></x>'
    file = with_chunks(tmp_path / "a.png", chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode()))
    with pytest.raises(Untold, match="holds no settings of a program that is read"):
        read_recipe(file)


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ({"Comment": "made by hand"}, r"holds no settings of a program that is read \(it holds Comment\)"),
        ({}, "nothing tells how it was made"),
        ({"invokeai_metadata": "{"}, "no JSON that can be read"),
        ({"invokeai_metadata": "[]"}, "no JSON object"),
        ({"invokeai_metadata": "{}"}, "its prompt is no text"),
        ({"invokeai_metadata": '{"positive_prompt": "\\ud800"}'}, "its prompt is no text"),
        ({"invokeai_metadata": '{"a":' * 50_000}, "no JSON that can be read"),
        ({"sd-metadata": '{"image": 3}'}, "hold no `image`"),
        ({"Dream": '"a barn'}, "its command line cannot be read"),
        ({"Dream": ""}, "its command line cannot be read"),
        ({"Dream": "x" * (2 << 20)}, "too long"),
        ({"parameters": '{"sui_image_params": {"prompt": 5}}'}, "its prompt is no text"),
    ],
)
def test_what_cannot_be_read_is_refused(read: Read, texts: dict[str, str], why: str) -> None:
    with pytest.raises(Untold, match=why):
        read(texts)


def test_a_prompt_that_begins_with_a_brace_is_a_prompt(read: Read) -> None:
    text = "{a barn}, snow\nSteps: 20, Sampler: Euler, Seed: 5, RNG: CPU"
    assert read({"parameters": text}).prompt == "{a barn}, snow"
