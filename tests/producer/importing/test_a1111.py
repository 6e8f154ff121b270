"""A1111's text is read, and what has no equal is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.output.metadata import parameters_text
from jobs.request import ImageRequest
from jobs.schedulers import FLOW_SCHEDULERS, SCHEDULERS
from producer.importing.a1111 import read_parameters
from producer.importing.programs import read_recipe
from tests.producer.importing.picture_files import commented, png

BARN = """an old barn, snow
mountains behind
Negative prompt: people, fog
Steps: 28, Sampler: Euler a, CFG scale: 6, Seed: 77, Size: 512x768, Model hash: 0123abcd, Model: barns_v2, \
RNG: CPU, Version: v1.10.1"""

PROMPTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40).filter(
    lambda text: "Negative prompt:" not in text and "Steps: " not in text
)


def losses(text: str) -> dict[str, str]:
    return {loss.what: loss.remedy for loss in read_parameters(text).losses}


def test_prompt_settings_and_model_are_read() -> None:
    draft = read_parameters(BARN)
    assert draft.prompt == "an old barn, snow\nmountains behind"
    assert draft.settings == {
        "negative_prompt": "people, fog",
        "num_inference_steps": 28,
        "scheduler": "Euler a",
        "guidance_scale": 6.0,
        "seed": 77,
        "width": 512,
        "height": 768,
    }
    assert (draft.model.name, draft.model.hash, draft.model.model) == ("barns_v2", "0123abcd", None)
    assert draft.losses == []


@settings(deadline=None)
@given(
    PROMPTS,
    PROMPTS,
    st.integers(0, 2**63 - 1),
    st.sampled_from([one.name for one in (*SCHEDULERS, *FLOW_SCHEDULERS)]),
    st.floats(1, 100),
)
def test_what_parameters_text_writes_comes_back(
    prompt: str, negative_prompt: str, seed: int, scheduler: str, guidance_scale: float
) -> None:
    request = ImageRequest(
        prompt=prompt, negative_prompt=negative_prompt, seed=seed, scheduler=scheduler, height=640, width=328,
        guidance_scale=guidance_scale, model="org/na,me: x", revision="c" * 40,
    )  # fmt: skip
    draft = read_parameters(parameters_text(request))
    assert draft.prompt == prompt
    assert draft.settings.pop("negative_prompt", "") == negative_prompt
    assert draft.settings == {
        "height": 640, "width": 328, "num_inference_steps": 50, "guidance_scale": guidance_scale,
        "scheduler": scheduler, "seed": seed,
    }  # fmt: skip
    assert (draft.model.name, draft.model.hash) == ("org/na,me: x", "c" * 10)
    assert draft.losses == []


def test_only_imagemills_own_text_names_a_model_that_a_manifest_may_have() -> None:
    request = ImageRequest(prompt="x", seed=1, model="org/name", revision="c" * 40)
    assert read_parameters(parameters_text(request)).model.model == "org/name"
    assert read_parameters("x\nSteps: 1, Seed: 2, Model: org/name").model.model is None


@pytest.mark.parametrize(
    ("said", "scheduler"),
    [
        ("Sampler: DPM++ 2M Karras", "DPM++ 2M Karras"),
        ("Sampler: DPM++ 2M, Schedule type: Karras", "DPM++ 2M Karras"),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "DPM++ 2M"),
        ("Sampler: euler a, Schedule type: Uniform", "Euler a"),
        ("Sampler: PLMS", "PNDM"),
    ],
)
def test_samplers_of_old_and_new_versions_are_the_same(said: str, scheduler: str) -> None:
    draft = read_parameters(f"x\nSteps: 20, {said}, Seed: 5, RNG: CPU")
    assert (draft.settings["scheduler"], draft.losses) == (scheduler, [])


@pytest.mark.parametrize(
    ("said", "scheduler", "what"),
    [
        ("Sampler: Restart", None, "sampler: Restart"),
        ("Sampler: DPM2 Karras", "DPM2", "sampler: DPM2 Karras"),
        ("Sampler: Heun, Schedule type: SGM Uniform", "Heun", "sampler: Heun, schedule: SGM Uniform"),
    ],
)
def test_a_sampler_without_an_equal_is_named(said: str, scheduler: str | None, what: str) -> None:
    text = f"x\nSteps: 20, {said}, Seed: 5, RNG: CPU"
    assert read_parameters(text).settings.get("scheduler") == scheduler
    assert what in losses(text)


def test_every_setting_without_an_equal_is_named_with_its_value() -> None:
    said = losses(
        "x\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 512x512, Clip skip: 2, ENSD: 31337, "
        "Variation seed: 9, Hires upscale: 2, Denoising strength: 0.4, ADetailer model: face.pt, RNG: CPU, "
        'Lora hashes: "ink: 12ab, wash: 34cd", ControlNet 0: "Module: canny, Model: c, Weight: 1", VAE: v.pt'
    )
    assert list(said) == [
        "Clip skip: 2", "ENSD: 31337", "Variation seed: 9", "Hires upscale: 2", "Denoising strength: 0.4",
        "ADetailer model: face.pt", "Lora hashes: ink: 12ab, wash: 34cd",
        "ControlNet 0: Module: canny, Model: c, Weight: 1", "VAE: v.pt",
    ]  # fmt: skip


def test_values_that_are_the_default_lose_nothing() -> None:
    assert losses("x\nSteps: 20, Sampler: Euler, Seed: 5, Clip skip: 1, RNG: CPU") == {}


def test_noise_of_a_gpu_is_told_as_something_of_the_program() -> None:
    [loss] = read_parameters("x\nSteps: 20, Sampler: Euler, Seed: 5").losses
    assert loss.of_program
    assert "RNG: CPU" in str(loss)


END = "\nSteps: 20, Sampler: Euler, Seed: 5, RNG: CPU"


@pytest.mark.parametrize(
    "texts",
    [
        "a (tall:1.3) tower",
        "a ((tall)) [grey] tower",
        r"paris \(texas\)",
        "fog BREAK sky",
        "x\nNegative prompt: (y)",
    ],
)
def test_texts_with_a1111s_syntax_are_imported_with_it_and_lose_nothing(texts: str) -> None:
    draft = read_parameters(texts + END)
    assert (draft.settings["syntax"], draft.losses) == ("a1111", [])
    assert draft.prompt == texts.partition("\n")[0]


@pytest.mark.parametrize(
    "text",
    [
        "a tall tower, fog",
        "(tall:1.3) <lyco:x:1>",
        "(tall:1.3) <lora:x:1:0.5>",
        "(big) cat AND dog",
        "[a|b] (c)",
        "(a:900)",
    ],
)
def test_texts_that_need_no_syntax_and_texts_that_it_refuses_stay_plain(text: str) -> None:
    assert "syntax" not in read_parameters(text + END).settings


def test_texts_whose_weights_a1111_did_not_apply_stay_plain() -> None:
    draft = read_parameters(f"a (tall:1.3) tower <lora:x:1>{END}, Emphasis: None")
    assert "syntax" not in draft.settings
    assert [loss.what for loss in draft.losses] == ["Emphasis: None", "<lora:x:1>"]


def test_loras_of_a_prompt_make_it_one_of_a1111s_syntax_and_lose_nothing() -> None:
    for text in ("a tower <lora:brick:0.7>", "a (tall:1.3) tower, <LoRA:old brick> BREAK sky"):
        draft = read_parameters(text + END)
        assert (draft.settings["syntax"], draft.prompt, draft.losses) == ("a1111", text, [])
    [(what, remedy)] = losses(f'a <lora:brick:0.7>{END}, Lora hashes: "brick: 12ab"').items()
    assert what == "Lora hashes: brick: 12ab"
    assert remedy == "imagemill takes the file of that name in `lora_folder`, whatever its hash"


def test_syntax_that_is_refused_stays_in_the_prompt_and_is_named() -> None:
    text = "a (tall:1.3) tower <lyco:brick:0.7> BREAK sky\nSteps: 20, Sampler: Euler, Seed: 5, RNG: CPU"
    assert read_parameters(text).prompt == "a (tall:1.3) tower <lyco:brick:0.7> BREAK sky"
    assert list(losses(text)) == ["<lyco:brick:0.7>", "(tall:1.3)", "BREAK"]


def test_lines_after_the_settings_are_named() -> None:
    text = "a cat\nSteps: 20, Sampler: Euler, Seed: 5, RNG: CPU\nTemplate: a {cat|dog}, large"
    assert read_parameters(text).settings["seed"] == 5
    assert list(losses(text)) == ["Template: a {cat|dog}, large"]


def test_a_last_line_of_two_pairs_is_part_of_the_prompt() -> None:
    draft = read_parameters("a clock\ntime: noon, place: hall")
    assert draft.prompt == "a clock\ntime: noon, place: hall"


def test_a_value_out_of_bounds_is_left_open_and_named() -> None:
    text = "x\nSteps: 5000, Sampler: Euler, Seed: -3, CFG scale: 0, Size: 500x512, RNG: CPU"
    assert read_parameters(text).settings == {"scheduler": "Euler", "height": 512}
    assert losses(text)["Steps: 5000"].startswith("must be a whole number, 1 to 1000: the model's own counts")
    assert losses(text)["Seed: -3"].endswith("one is derived until `seed` is given")
    assert set(losses(text)) == {"Steps: 5000", "Seed: -3", "CFG scale: 0", "Size, its width,: 500"}


def test_hostile_settings_are_read_in_time() -> None:
    for part in ('a: "x', "a: [", " ", "a:", '"', "[", "a: {"):
        read_parameters("x\nSteps: 20, " + part * (200_000 // len(part)))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_each_format_holds_the_text(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "a.png":
        png(file, {"parameters": BARN}, (512, 768))
    else:
        commented(file, b"UNICODE\0" + BARN.encode("utf-16-be"), (512, 768))
    recipe = read_recipe(file)
    assert (recipe.program, recipe.settings["seed"], recipe.losses) == ("A1111", 77, ())


def test_a_picture_that_was_enlarged_is_named(tmp_path: Path) -> None:
    file = png(tmp_path / "a.png", {"parameters": BARN}, (1024, 1536))
    [loss] = read_recipe(file).losses
    assert loss.what == "the picture is 1024x1536"
    assert "512x768 is written" in loss.remedy
