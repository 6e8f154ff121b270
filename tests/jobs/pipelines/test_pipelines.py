"""What the producer knows of diffusers' classes, without diffusers."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from jobs.errors import ModelError
from jobs.pipelines.pipeline_class import NOT_AT_HAND, Folder
from jobs.pipelines.pipeline_settings import setting_troubles
from jobs.pipelines.pipelines import admitted, find_pipeline, refusal
from jobs.request import ImageRequest
from jobs.schedulers import FLOW_SCHEDULERS, SCHEDULERS, forwards

ASKED = ImageRequest(prompt="a fox", seed=1, model="m", revision="r", num_inference_steps=10)


def asked(class_name: str, **settings: Any) -> ImageRequest:
    """A request with the class's own settings, and these."""
    pipeline = find_pipeline(class_name)
    own = {
        "guidance_scale": pipeline.guidance_scale,
        "scheduler": pipeline.scheduler,
        "height": 1024,
        "width": 1024,
    }
    return replace(ASKED, **(own | settings))


def troubles(class_name: str, folder: Folder = NOT_AT_HAND, **settings: Any) -> list[str]:
    values = asked(class_name, **settings).to_mapping()
    return [str(one) for one in setting_troubles(find_pipeline(class_name), values, folder)]


@pytest.mark.parametrize("name", admitted())
def test_every_class_takes_its_own_defaults(name: str) -> None:
    size = find_pipeline(name).size["default"].get("pixels", [1024, 1024])
    assert troubles(name, height=size[0], width=size[1]) == []


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("StableDiffusionPipeline", {"guidance_scale": 0.5}, "guidance_scale = 0.5: must be at least 1"),
        (
            "StableDiffusionPipeline",
            {"scheduler": "Flow Euler"},
            'scheduler = "Flow Euler": StableDiffusionPipeline does not take it: use LMS,',
        ),
        (
            "StableDiffusionPipeline",
            {"arguments": '{"eta":1}'},
            "arguments.eta = 1: cannot be given: this version's own sampler of StableDiffusionPipeline",
        ),
        (
            "StableDiffusion3Pipeline",
            {"scheduler": "Euler"},
            'scheduler = "Euler": StableDiffusion3Pipeline does not take it: use default, Flow Euler,',
        ),
        (
            "FluxPipeline",
            {"scheduler": "Flow Heun"},
            'scheduler = "Flow Heun": FluxPipeline does not take it: use default, Flow Euler or Flow UniPC',
        ),
        ("FluxPipeline", {"height": 1000}, "height = 1000: must be a multiple of 16 (992 or 1008)"),
        (
            "FluxPipeline",
            {"arguments": '{"max_sequence_lenght":256}'},
            "arguments.max_sequence_lenght = 256: FluxPipeline has no such argument: did you mean "
            "max_sequence_length?",
        ),
        (
            "FluxPipeline",
            {"arguments": '{"max_sequence_length":1.5}'},
            "arguments.max_sequence_length = 1.5: must be a whole number",
        ),
        (
            "FluxPipeline",
            {"arguments": '{"height":512}'},
            "arguments.height = 512: is given as height in `settings`, not here",
        ),
        (
            "FluxPipeline",
            {"arguments": '{"sigmas":[1,0.5]}'},
            "arguments.sigmas = [1, 0.5]: has 2 values, and num_inference_steps = 10: make them the same",
        ),
        (
            "Flux2Pipeline",
            {"negative_prompt": "x"},
            'negative_prompt = "x": Flux2Pipeline takes none: remove it',
        ),
        (
            "HunyuanImagePipeline",
            {"guidance_scale": 4.0},
            "guidance_scale = 4.0: HunyuanImagePipeline has no guidance: remove it",
        ),
        (
            "HunyuanDiTPipeline",
            {"height": 512},
            "height = 512: HunyuanDiTPipeline takes no 512x1024 (height x width): use 1024x1024,",
        ),
        ("Kandinsky5T2IPipeline", {"width": 512}, "height = 1024: Kandinsky5T2IPipeline takes no 1024x512"),
        (
            "HiDreamImagePipeline",
            {"height": 512, "width": 512},
            "height = 512: HiDreamImagePipeline would paint 1024x1024 (height x width): give that size",
        ),
        (
            "FluxKontextPipeline",
            {"height": 512, "width": 512},
            "height = 512: FluxKontextPipeline would paint 1024x1024 (height x width): give that size",
        ),
        ("SanaPipeline", {"height": 1008}, "height = 1008: must be a multiple of 32 (992 or 1024)"),
        (
            "ErnieImagePipeline",
            {"arguments": '{"use_pe":true}'},
            "arguments.use_pe = true: cannot be given: it rewrites the prompt at random",
        ),
        (
            "FluxPipeline",
            {"arguments": '{"max_sequence_length":513}'},
            "arguments.max_sequence_length = 513: must be a whole number of at least 1 and at most 512",
        ),
        (
            "Krea2Pipeline",
            {"arguments": '{"max_sequence_length":0}'},
            "arguments.max_sequence_length = 0: must be a whole number of at least 1",
        ),
        (
            "StableDiffusionXLPipeline",
            {"arguments": '{"denoising_end":0}'},
            "arguments.denoising_end = 0: must be a number above 0 and at most 1, or null",
        ),
        (
            "StableDiffusionXLPipeline",
            {"arguments": '{"eta":0.5}', "scheduler": "Euler"},
            "arguments.eta = 0.5: the scheduler Euler ignores it: use default or DDIM, or remove it",
        ),
        (
            "StableDiffusionXLPipeline",
            {"arguments": '{"sigmas":[9,1,0]}', "scheduler": "LMS", "num_inference_steps": 2},
            "arguments.sigmas = [9, 1, 0]: the scheduler LMS takes no such list: use default, Euler or Euler"
            " Karras, or remove it",
        ),
        (
            "StableDiffusionXLPipeline",
            {"arguments": '{"sigmas":[9,1]}', "num_inference_steps": 2},
            "arguments.sigmas = [9, 1]: has 2 values, and num_inference_steps = 2: give one more, the last 0",
        ),
        (
            "StableDiffusionXLPipeline",
            {"arguments": '{"sigmas":[9,1,0.1]}', "num_inference_steps": 2},
            "arguments.sigmas = [9, 1, 0.1]: must end with 0, or noise is left: add it, or make it the last",
        ),
        (
            "StableDiffusionXLPipeline",
            {"arguments": '{"timesteps":[1,900]}', "num_inference_steps": 2},
            "arguments.timesteps = [1, 900]: must descend: sort them, each once",
        ),
        (
            "SanaSprintPipeline",
            {"arguments": '{"intermediate_timesteps":1.2}', "num_inference_steps": 4},
            "arguments.intermediate_timesteps = 1.2: only means something at num_inference_steps = 2: remove",
        ),
        (
            "SanaSprintPipeline",
            {"arguments": '{"timesteps":[1]}'},
            "arguments.timesteps = [1]: cannot be given: diffusers gives them to its scheduler without",
        ),
        (
            "LatentConsistencyModelPipeline",
            {"arguments": '{"original_inference_steps":4}'},
            "arguments.original_inference_steps = 4: must be at least num_inference_steps = 10",
        ),
    ],
)
def test_what_a_class_does_not_take_is_told_with_what_is_possible(
    name: str, settings: dict[str, Any], told: str
) -> None:
    [one] = troubles(name, **settings)
    assert one.startswith(told)


def test_a_class_takes_what_lifts_its_own_sizes() -> None:
    assert troubles("FluxKontextPipeline", height=512, width=512, arguments='{"max_area":262144}') == []
    assert troubles("HunyuanDiTPipeline", height=512, arguments='{"use_resolution_binning":false}') == []


def test_a_shift_of_the_users_is_refused_where_the_model_would_ignore_it() -> None:
    given = {"arguments": '{"mu":0.8}'}
    assert troubles("StableDiffusion3Pipeline", **given) == []
    assert troubles("StableDiffusion3Pipeline", Folder(dynamic_shift=True), **given) == []
    [told] = troubles("StableDiffusion3Pipeline", Folder(dynamic_shift=False), **given)
    assert told == "arguments.mu = 0.8: would be ignored: this model shifts all noise levels alike; remove it"


def test_sana_sprint_takes_any_number_of_steps() -> None:
    sprint = find_pipeline("SanaSprintPipeline")

    def call(steps: int, arguments: str = "{}") -> dict[str, Any]:
        return sprint.call_arguments(
            asked("SanaSprintPipeline", num_inference_steps=steps, arguments=arguments)
        )

    assert troubles("SanaSprintPipeline", num_inference_steps=4) == []
    assert call(4)["intermediate_timesteps"] is None
    assert "intermediate_timesteps" not in call(2)
    assert call(2, '{"intermediate_timesteps":1.1}')["intermediate_timesteps"] == 1.1


def test_the_multiple_follows_the_models_own_latents() -> None:
    assert find_pipeline("FluxPipeline").multiple(Folder(scale=16)) == 32
    assert find_pipeline("FluxPipeline").multiple(Folder(scale=2)) == 8


def test_a_sampler_that_knows_no_dynamic_shift_is_refused_where_the_model_needs_it() -> None:
    assert troubles("StableDiffusion3Pipeline", scheduler="Flow Heun") == []
    [told] = troubles("StableDiffusion3Pipeline", Folder(dynamic_shift=True), scheduler="Flow Heun")
    assert told.endswith("as this model needs: use default, Flow Euler, Flow UniPC or Flow DPM++ 2M")


@pytest.mark.parametrize("scale", [1.0, 7.5])
@pytest.mark.parametrize("scheduler", [one.name for one in SCHEDULERS])
def test_stable_diffusion_costs_what_it_always_did(scheduler: str, scale: float) -> None:
    request = replace(ASKED, scheduler=scheduler, guidance_scale=scale)
    pipeline = find_pipeline("StableDiffusionPipeline")
    assert pipeline.slot_evaluations(request) == forwards(scheduler, 10) * (2 if request.guided else 1)
    assert pipeline.guided(request) is request.guided


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("FluxPipeline", {}, 10),
        ("FluxPipeline", {"arguments": '{"true_cfg_scale":4}'}, 20),
        ("QwenImagePipeline", {}, 20),
        ("QwenImagePipeline", {"guidance_scale": 1.0}, 10),
        ("ZImagePipeline", {"guidance_scale": 0.5}, 20),
        ("ZImagePipeline", {"guidance_scale": 0.0}, 10),
        ("StableDiffusion3Pipeline", {"scheduler": "Flow Heun"}, 2 * 19),
        ("StableDiffusionXLPAGPipeline", {}, 30),
        ("StableDiffusionXLPAGPipeline", {"arguments": '{"pag_scale":0}'}, 20),
        ("KandinskyV22CombinedPipeline", {}, 2 * 25 + 20),
        ("KandinskyV22CombinedPipeline", {"arguments": '{"prior_num_inference_steps":5}'}, 2 * 5 + 20),
        ("KandinskyV22CombinedPipeline", {"guidance_scale": 1.0}, 2 * 25 + 10),
        ("HunyuanImagePipeline", {}, 20),
    ],
)
def test_slots_are_counted_as_the_class_guides(name: str, settings: dict[str, Any], count: int) -> None:
    assert find_pipeline(name).slot_evaluations(asked(name, **settings)) == count


def test_the_call_gets_our_settings_by_its_own_names() -> None:
    flux = find_pipeline("FluxPipeline")
    assert flux.call_arguments(asked("FluxPipeline", arguments='{"true_cfg_scale":4}')) == {
        "prompt": "a fox",
        "height": 1024,
        "width": 1024,
        "num_inference_steps": 10,
        "negative_prompt": "",
        "guidance_scale": 3.5,
        "true_cfg_scale": 4.0,
    }
    qwen = find_pipeline("QwenImagePipeline").call_arguments(
        asked("QwenImagePipeline", negative_prompt="dull")
    )
    assert (qwen["true_cfg_scale"], qwen["negative_prompt"]) == (4.0, "dull")
    assert "guidance_scale" not in qwen
    ernie = find_pipeline("ErnieImagePipeline").call_arguments(asked("ErnieImagePipeline"))
    assert ernie["use_pe"] is False
    xl = asked("StableDiffusionXLPipeline", arguments='{"original_size":[512,768]}')
    keywords = find_pipeline("StableDiffusionXLPipeline").call_arguments(xl)
    # None and "" are two pictures there; None is what diffusers paints where nobody gives one.
    assert keywords["negative_prompt"] is None
    assert keywords["original_size"] == (512, 768)


def test_every_class_names_schedulers_that_there_are() -> None:
    names = {"default", *(one.name for one in (*SCHEDULERS, *FLOW_SCHEDULERS))}
    for name in admitted():
        pipeline = find_pipeline(name)
        assert pipeline.schedulers
        assert names.issuperset(pipeline.schedulers)
        assert pipeline.scheduler == ("LMS" if name == "StableDiffusionPipeline" else "default")


def test_a_class_that_is_not_rendered_is_told_with_why_and_what_is() -> None:
    assert refusal("FluxPipeline") is None
    told = refusal("StableDiffusionUpscalePipeline")
    assert told is not None
    assert told.startswith(
        "is a StableDiffusionUpscalePipeline, which is not rendered: it needs a picture to"
    )
    assert "StableDiffusionXLPipeline" in told
    task = refusal("StableDiffusionImg2ImgPipeline")
    assert task is not None
    assert "it is what paints some images of a StableDiffusionPipeline: save the model as that" in task
    with pytest.raises(ModelError, match="has no such class"):
        find_pipeline("NoSuchPipeline")
    with pytest.raises(ModelError, match="does not make pictures, but videos"):
        find_pipeline("WanPipeline")


def test_trouble_names_setting_and_argument() -> None:
    values = asked("FluxPipeline", arguments='{"heigth":5}').to_mapping()
    [one] = setting_troubles(find_pipeline("FluxPipeline"), values, NOT_AT_HAND)
    assert asdict(one)["path"] == ("arguments", "heigth")
