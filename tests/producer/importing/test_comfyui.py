"""ComfyUI's graph is followed from its sampler; what cannot be told is refused by its node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from producer.importing.comfyui import read_comfyui
from producer.importing.programs import read_recipe
from producer.importing.recipe import Draft, Untold
from tests.producer.importing.picture_files import png

Nodes = dict[str, dict[str, Any]]


def node(kind: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def plain(**sampler: object) -> Nodes:
    """The graph that ComfyUI begins with."""
    inputs: dict[str, object] = {
        "seed": 99, "steps": 24, "cfg": 6, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0,
        "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
    }  # fmt: skip
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="barns.safetensors"),
        "2": node("CLIPTextEncode", text="a barn", clip=["1", 1]),
        "3": node("CLIPTextEncode", text="fog", clip=["1", 1]),
        "4": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "5": node("KSampler", **(inputs | sampler)),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="x"),
    }


def read(nodes: Nodes) -> Draft:
    return read_comfyui({"prompt": json.dumps(nodes)})


def whats(draft: Draft) -> list[str]:
    return [loss.what for loss in draft.losses]


EXPECTED = {
    "negative_prompt": "fog", "seed": 99, "num_inference_steps": 24, "guidance_scale": 6.0,
    "scheduler": "DPM++ 2M Karras", "width": 512, "height": 768,
}  # fmt: skip


def test_the_plain_graph_is_read_whole() -> None:
    draft = read(plain())
    assert (draft.prompt, draft.model.name, draft.losses) == ("a barn", "barns.safetensors", [])
    assert draft.settings == EXPECTED


def test_the_shown_workflow_says_the_same() -> None:
    nodes = [
        {"id": 1, "type": "CheckpointLoaderSimple", "widgets_values": ["barns.safetensors"]},
        {"id": 2, "type": "CLIPTextEncode", "widgets_values": ["a barn"]},
        {"id": 3, "type": "CLIPTextEncode", "widgets_values": ["fog"]},
        {"id": 4, "type": "EmptyLatentImage", "widgets_values": [512, 768, 1]},
        {
            "id": 5, "type": "KSampler", "widgets_values": [99, "fixed", 24, 6, "dpmpp_2m", "karras", 1],
            "inputs": [
                {"name": "model", "link": 10}, {"name": "positive", "link": 11},
                {"name": "negative", "link": 12}, {"name": "latent_image", "link": 14},
            ],
        },
        {"id": 8, "type": "Reroute", "inputs": [{"name": "", "link": 13}]},
        {"id": 9, "type": "KSampler", "mode": 4, "widgets_values": []},
    ]  # fmt: skip
    links = [[10, 1, 0, 5, 0, "MODEL"], [11, 2, 0, 5, 1, "C"], [12, 3, 0, 5, 2, "C"], [13, 4, 0, 8, 0, "*"],
             [14, 8, 0, 5, 3, "LATENT"]]  # fmt: skip
    draft = read_comfyui({"workflow": json.dumps({"nodes": nodes, "links": links})})
    assert (draft.prompt, draft.settings, draft.losses) == ("a barn", EXPECTED, [])


def test_values_that_come_from_a_primitive_are_followed() -> None:
    nodes = plain(seed=["8", 0])
    nodes["8"] = node("PrimitiveInt", value=7, control_after_generate="fixed")
    nodes["2"]["inputs"]["text"] = ["9", 0]
    nodes["9"] = node("PrimitiveStringMultiline", value="a mill\nby a brook")
    draft = read(nodes)
    assert (draft.prompt, draft.settings["seed"], draft.losses) == ("a mill\nby a brook", 7, [])


def test_the_advanced_sampler_has_names_of_its_own() -> None:
    nodes = plain()
    nodes["5"]["class_type"] = "KSamplerAdvanced"
    nodes["5"]["inputs"] |= {"noise_seed": 3, "start_at_step": 0, "end_at_step": 10000}
    assert read(nodes).settings["seed"] == 3
    assert read(nodes).losses == []


def test_a_second_pass_is_named_and_the_first_is_read() -> None:
    nodes = plain()
    nodes["8"] = node("LatentUpscale", samples=["5", 0], width=1024)
    nodes["9"] = node(
        "KSampler", **{**nodes["5"]["inputs"], "latent_image": ["8", 0], "seed": 1, "denoise": 0.5}
    )
    draft = read(nodes)
    assert draft.settings["seed"] == 99
    assert whats(draft) == ["KSampler (node 9)", "LatentUpscale: 1024"]


def test_nodes_without_an_equal_are_named_with_their_values() -> None:
    nodes = plain(model=["8", 0], denoise=0.6)
    nodes["8"] = node("LoraLoader", lora_name="ink.safetensors", strength_model=0.8, model=["1", 0])
    draft = read(nodes)
    assert draft.model.name == "barns.safetensors"
    assert whats(draft) == ["denoise: 0.6", "LoraLoader: ink.safetensors, 0.8"]


def test_a_picture_over_another_and_one_of_a_batch_are_named() -> None:
    over = plain(latent_image=["8", 0])
    over["8"] = node("VAEEncode", pixels=["10", 0])
    assert "latent_image of KSampler (node 5)" in whats(read(over))
    batch = plain()
    batch["4"]["inputs"]["batch_size"] = 4
    assert whats(read(batch)) == ["batch_size: 4"]


def test_a_sampler_or_seed_that_a_request_cannot_have_is_named() -> None:
    draft = read(plain(sampler_name="res_multistep", seed=2**64 - 1))
    assert whats(draft) == ["seed: 18446744073709551615", "sampler: res_multistep, schedule: karras"]
    assert {"seed", "scheduler"}.isdisjoint(draft.settings)


def test_zeroed_conditioning_is_no_negative_prompt() -> None:
    nodes = plain(negative=["8", 0])
    nodes["8"] = node("ConditioningZeroOut", conditioning=["2", 0])
    draft = read(nodes)
    assert "negative_prompt" not in draft.settings
    assert whats(draft) == ["ConditioningZeroOut"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"5": node("SamplerCustomAdvanced", noise=["1", 0])}, r"SamplerCustomAdvanced \(node 5\)"),
        ({"5": node("Nothing")}, "has no sampler"),
        ({"2": node("WildcardText", text="x")}, r"WildcardText \(node 2\) is not read"),
        ({"2": node("CLIPTextEncode", text=["8", 0]), "8": node("Mix", a="x", b="y")}, "that are not read"),
        ({"2": node("Combine", conditioning=["2", 0])}, "no text that can be followed"),
        ({"8": plain()["5"]}, r"KSampler \(node 5\), KSampler \(node 8\): which"),
        ({"2": node("CLIPTextEncodeSDXL", text_g="a", text_l="b")}, "cannot be told"),
        ({"5": node("KSampler")}, "no text that can be followed"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_by_its_node(change: Nodes, why: str) -> None:
    with pytest.raises(Untold, match=why):
        read(plain() | change)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", '{"1": 2}', '{"nodes": {}}', "[" * 100_000, '{"a":' * 5000,
        '{"1": {"class_type": []}}',
    ],
)  # fmt: skip
def test_a_graph_that_is_none_is_refused(text: str) -> None:
    for key in ("prompt", "workflow"):
        with pytest.raises(Untold, match=r"settings|nodes"):
            read_comfyui({key: text})


@pytest.mark.parametrize("wrong", [None, [], {}, ["5", 0], ["5"], [["5"], 0], [None, 0], "x", True, 1e400])
def test_inputs_of_any_kind_are_read_or_refused(wrong: object) -> None:
    for key in plain()["5"]["inputs"]:
        try:
            draft = read(plain(**{key: wrong}))
        except Untold as error:
            assert "cannot be told" in str(error)
        else:
            assert draft.prompt == "a barn"


def test_graphs_in_the_exif_of_a_webp_are_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps(plain())
    Image.new("RGB", (512, 768)).save(tmp_path / "a.webp", exif=exif.tobytes())
    recipe = read_recipe(tmp_path / "a.webp")
    assert (recipe.program, recipe.prompt, recipe.losses) == ("ComfyUI", "a barn", ())


def test_the_size_is_the_pictures_own_where_the_graph_tells_none(tmp_path: Path) -> None:
    nodes = plain(latent_image=["8", 0])
    nodes["8"] = node("VAEEncode", pixels=["10", 0])
    recipe = read_recipe(png(tmp_path / "a.png", {"prompt": json.dumps(nodes)}, (640, 320)))
    assert (recipe.settings["width"], recipe.settings["height"]) == (640, 320)
