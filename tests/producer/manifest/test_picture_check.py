"""What a manifest asks for of pictures is checked against the class that paints each line from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from jobs.errors import ManifestError
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.prompt_files.reading import Reading
from producer.requests.prepared import Prepared, prepare

CONFIGS = {
    "FluxPipeline": {"vae": {"block_out_channels": [1, 2, 3, 4]}},
    "FluxFillPipeline": {"vae": {"block_out_channels": [1, 2, 3, 4]}},
    "FluxKontextPipeline": {"vae": {"block_out_channels": [1, 2, 3, 4]}},
    "LuminaPipeline": {"vae": {"block_out_channels": [1, 2, 3, 4]}, "transformer": {"sample_size": 128}},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, parts in CONFIGS.items():
        (tmp_path / name).mkdir()
        index = {"_class_name": name} | {part: ["diffusers", "X"] for part in parts}
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
        for part, config in parts.items():
            (tmp_path / name / part).mkdir()
            (tmp_path / name / part / "config.json").write_text(json.dumps(config))
    (tmp_path / "edges").mkdir()
    (tmp_path / "edges" / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    (tmp_path / "edges" / "diffusion_pytorch_model.safetensors").write_text("edges")
    for name in ("a", "b"):
        Image.new("RGB", (8, 8), "red").save(f"{name}.png")


def prepared(text: str) -> Prepared:
    Path("m.yaml").write_text(text)
    return prepare(Path("m.yaml"), Settings())


def requests(text: str) -> list[ImageRequest]:
    return [entry.request for _image_id, entry in prepared(text).entries()]


def told(text: str, limit: int | None = None) -> list[str]:
    """What a submission says of settings in vain once it has read all."""
    Path("m.yaml").write_text(text)
    reading = Reading()
    list(prepare(Path("m.yaml"), Settings(), limit=limit).entries(reading=reading))
    return [line for line in reading.told() if "does nothing" in line]


def refusal(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        requests(text)
    return str(caught.value).splitlines()


def test_a_line_gets_the_strength_of_the_class_that_paints_it() -> None:
    text = """
name: m
model: shapes
settings: {strength: 0.6}
prompts:
  - a
  - {prompt: b, image: a.png}
  - {prompt: c, image: a.png, strength: 0.5}
"""
    assert [one.strength for one in requests(text)] == [None, 0.6, 0.5]
    [shapes] = requests("{name: m, model: shapes, prompts: [{prompt: b, image: a.png}]}")
    [flux] = requests("{name: m, model: ./FluxPipeline, prompts: [{prompt: b, image: a.png}]}")
    [kontext] = requests("{name: m, model: ./FluxKontextPipeline, prompts: [{prompt: b, image: a.png}]}")
    assert (shapes.strength, flux.strength, kontext.strength) == (0.8, 0.6, None)


def test_arguments_are_those_of_the_class_that_paints_the_line() -> None:
    text = """
name: m
model: shapes
prompts:
  - {prompt: a, image: a.png, arguments: {eta: 0.5}}
  - {prompt: b, arguments: {eta: 0.5}}
  - {prompt: c, image: a.png, arguments: {guess_mode: true}}
"""
    assert refusal(text) == [
        "m.yaml:6:34: prompts[1].arguments.eta = 0.5: cannot be given: this version's own sampler of "
        "StableDiffusionPipeline does not know it; remove it",
        "m.yaml:7:55: prompts[2].arguments.guess_mode = true: StableDiffusionImg2ImgPipeline has no "
        "such argument: use timesteps, sigmas, eta or clip_skip",
    ]


def test_a_task_that_the_model_has_not_is_refused_at_its_picture() -> None:
    text = """
name: m
model: ./LuminaPipeline
prompts:
  - {prompt: a, image: a.png}
  - {prompt: b, image: b.png}
"""
    assert refusal(text) == [
        f"m.yaml:{line}:24: prompts[{line - 5}].image: LuminaPipeline has no image-to-image here: use a "
        "model of another class, or remove image"
        for line in (5, 6)
    ]


def test_a_mask_needs_an_image_and_a_control_image_a_controlnet() -> None:
    text = """
name: m
model: shapes
prompts:
  - {prompt: a, mask_image: a.png}
  - {prompt: b, control_image: b.png}
"""
    mask, control = refusal(text)
    assert mask == ("m.yaml:5:29: prompts[0].mask_image: needs image: give it too, or remove mask_image")
    assert control.startswith("m.yaml:6:32: prompts[1].control_image: needs a ControlNet: give ")


def test_a_controlnet_is_in_the_requests_of_its_lines_alone() -> None:
    text = """
name: m
model: shapes
controlnet: ./edges
settings: {controlnet_conditioning_scale: 0.5}
prompts: [a, {prompt: b, control_image: b.png}]
"""
    plain, controlled = requests(text)
    assert (plain.controlnet, plain.controlnet_conditioning_scale) == ("[]", 1.0)
    assert json.loads(controlled.controlnet)[0]["name"] == "edges"
    assert controlled.controlnet_conditioning_scale == 0.5


def test_what_a_line_gives_in_vain_is_refused_and_what_settings_give_where_no_line_needs_it() -> None:
    text = """
name: m
model: shapes
prompts:
  - {prompt: a, strength: 0.5}
  - {prompt: b, image: a.png}
"""
    assert refusal(text) == [
        "m.yaml:5:27: prompts[0].strength = 0.5: does nothing without image: give image, or remove it"
    ]
    text = """
name: m
model: shapes
controlnet: ./edges
settings: {strength: 0.5}
prompts: [a]
"""
    assert refusal(text) == [
        "m.yaml:5:22: settings.strength: does nothing: no line has an image: give image, or remove it",
        "m.yaml:4:13: controlnet[0]: does nothing: no line has a control_image: give control_image, or "
        "remove it",
    ]


def test_what_settings_give_in_vain_beside_prompt_files_is_told_once_all_rows_were_read() -> None:
    text = """
name: m
model: shapes
controlnet: ./edges
settings: {strength: 0.5, fit: pad}
sweep: {controlnet_conditioning_scale: [0.5, 1]}
prompts_from: rows.csv
"""
    Path("rows.csv").write_text("prompt,image,control_image\nx,,\ny,,\n")
    assert told(text) == [
        "m.yaml:5:32: settings.fit: does nothing: no line has a picture: give image, mask_image or "
        "control_image, or remove it",
        "m.yaml:5:22: settings.strength: does nothing: no line has an image: give image, or remove it",
        "m.yaml:6:41: sweep.controlnet_conditioning_scale[0]: does nothing: no line has a control_image: "
        "give control_image, or remove it",
        "m.yaml:4:13: controlnet[0]: does nothing: no line has a control_image: give control_image, or "
        "remove it",
    ]
    assert told(text, limit=1) == []  # a row that was not read may have pictures
    Path("rows.csv").write_text("prompt,image,control_image\nx,a.png,\ny,,b.png\n")
    assert told(text) == []


def test_a_strength_for_a_class_that_takes_none_is_refused_or_told() -> None:
    head = "name: m\nmodel: ./FluxKontextPipeline\nsettings: {strength: 0.5}\n"
    says = (
        "m.yaml:3:22: settings.strength: does nothing: what paints from these pictures takes none: use a "
        "model of another class, or remove it"
    )
    assert refusal(head + "prompts: [{prompt: a, image: a.png}]") == [says]
    Path("rows.csv").write_text("prompt,image\nx,a.png\n")
    assert told(head + "prompts_from: rows.csv") == [says]


def test_a_strength_is_tried_with_every_number_of_steps_of_a_sweep() -> None:
    text = """
name: m
model: shapes
prompts: [{prompt: a, image: a.png}]
sweep: {num_inference_steps: [10, 5], strength: [0.5, 0.1]}
"""
    assert refusal(text) == [
        "m.yaml:5:55: sweep.strength[1] = 0.1: leaves no step of num_inference_steps = 5: make it at least "
        "0.2, or give more steps"
    ]


def test_rows_may_give_the_pictures_that_a_model_needs_and_a_row_without_is_bad() -> None:
    Path("rows.csv").write_text("prompt,image,mask_image\nx,a.png,b.png\n")
    [one] = requests("{name: m, model: ./FluxFillPipeline, prompts_from: rows.csv}")
    assert one.strength == 1.0
    Path("rows.csv").write_text("prompt,image,mask_image\nx,a.png,b.png\ny,,\n")
    [words] = refusal("{name: m, model: ./FluxFillPipeline, prompts_from: rows.csv}")
    assert "rows.csv:3: " in words
    assert words.endswith("FluxFillPipeline paints from pictures: give image and mask_image")
    Path("rows.txt").write_text("x\n")
    [words] = refusal("{name: m, model: ./FluxFillPipeline, prompts_from: rows.txt}")
    assert "rows.txt:1: " in words
