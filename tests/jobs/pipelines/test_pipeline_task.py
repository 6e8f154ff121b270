"""Which class paints a request, by its pictures, and what a request may say of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.errors import RenderError
from jobs.pipelines.pipeline_class import NOT_AT_HAND, Strength
from jobs.pipelines.pipeline_task import (
    called,
    painted_by,
    painting_class,
    pictures_of,
    settled,
    task_key,
    task_of,
    troubles,
    vain,
)
from jobs.pipelines.pipelines import admitted, find_painting, find_pipeline
from jobs.request import ImageRequest

PICTURE = "0" * 64
CONTROLNET = '[{"name":"edges","revision":"r","scale":0.5}]'
BASE = ImageRequest(prompt="a fox", seed=1, model="m", revision="r", num_inference_steps=10)


def asked(class_name: str, key: str, **settings: Any) -> ImageRequest:
    """A request with the pictures of a key, and the model's own settings but for these."""
    pipeline = find_pipeline(class_name)
    own = {"guidance_scale": pipeline.guidance_scale, "scheduler": pipeline.scheduler}
    pictures = dict.fromkeys(filter(None, key.split("+")), PICTURE)
    size = dict(zip(("height", "width"), pipeline.size["default"].get("pixels", [1024, 1024]), strict=True))
    request = replace(BASE, **(own | size | pictures | {"controlnet": CONTROLNET} | settings))
    return replace(request, **settled(pipeline, request.to_mapping()))


def told(class_name: str, request: ImageRequest) -> list[str]:
    return [str(one) for one in troubles(find_pipeline(class_name), request.to_mapping(), NOT_AT_HAND)]


def test_the_key_of_a_task_names_the_pictures_in_one_order() -> None:
    given = {"control_image": "c", "image": "i", "mask_image": None, "prompt": "x"}
    assert task_key(given) == "image+control_image"
    assert task_of(replace(BASE, mask_image=PICTURE, image=PICTURE)) == "image+mask_image"
    assert task_of(BASE) == ""


@pytest.mark.parametrize("name", admitted())
def test_every_task_of_a_class_has_one_that_paints_it_and_takes_its_own_defaults(name: str) -> None:
    pipeline = find_pipeline(name)
    for key in pipeline.tasks:
        request = asked(name, key)
        painting = painted_by(pipeline, request)
        assert set(filter(None, key.split("+"))) <= painting.pictures.keys()
        assert painting.guidance == pipeline.guidance
        controlled = request if painting.takes_controlnet else replace(request, controlnet="[]")
        assert told(name, controlled) == []


@pytest.mark.parametrize(
    ("name", "key", "class_name"),
    [
        ("StableDiffusionPipeline", "", "StableDiffusionPipeline"),
        ("StableDiffusionPipeline", "image", "StableDiffusionImg2ImgPipeline"),
        ("StableDiffusionXLPipeline", "image+mask_image", "StableDiffusionXLInpaintPipeline"),
        ("FluxPipeline", "image+mask_image+control_image", "FluxControlNetInpaintPipeline"),
        ("FluxKontextPipeline", "image", "FluxKontextPipeline"),
        ("StableDiffusionInpaintPipeline", "image+mask_image", "StableDiffusionInpaintPipeline"),
    ],
)
def test_the_class_that_paints_follows_from_the_pictures(name: str, key: str, class_name: str) -> None:
    assert painted_by(find_pipeline(name), asked(name, key)).name == class_name


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        (
            "SanaPipeline",
            "image+mask_image",
            f'mask_image = "{PICTURE}": SanaPipeline has no inpainting here: use a model of another class, '
            "or remove mask_image",
        ),
        (
            "FluxPipeline",
            "mask_image",
            f'mask_image = "{PICTURE}": needs image: give it too, or remove mask_image',
        ),
        (
            "FluxFillPipeline",
            "",
            "image = null: FluxFillPipeline paints from pictures: give image and mask_image",
        ),
        (
            "LuminaPipeline",
            "control_image",
            f'control_image = "{PICTURE}": LuminaPipeline has no painting from control_image here: use a '
            "model of another class, or remove control_image",
        ),
        (
            "KolorsPipeline",
            "image+control_image",
            f'control_image = "{PICTURE}": KolorsPipeline has no painting from image and control_image here: '
            "use a model of another class, or remove control_image",
        ),
    ],
)
def test_a_task_that_a_model_has_not_is_told_at_its_picture_with_the_remedy(
    name: str, key: str, words: str
) -> None:
    request = asked(name, key)
    assert told(name, request) == [words]
    assert painting_class(find_pipeline(name), request).name == name
    with pytest.raises(RenderError) as raised:
        painted_by(find_pipeline(name), request)
    assert str(raised.value) == words


def test_a_control_image_without_a_controlnet_is_refused_where_the_class_needs_one() -> None:
    [words] = told(
        "StableDiffusionPipeline", asked("StableDiffusionPipeline", "control_image", controlnet="[]")
    )
    assert "needs a ControlNet: give `controlnet: MODEL` at the manifest's top, or remove" in words
    assert told("FluxControlPipeline", asked("FluxControlPipeline", "control_image", controlnet="[]")) == []


@pytest.mark.parametrize(
    ("name", "strength", "words"),
    [
        ("StableDiffusionPipeline", 0.1, None),
        (
            "StableDiffusionPipeline",
            0.05,
            "strength = 0.05: leaves no step of num_inference_steps = 10: make it at least 0.1, or give more",
        ),
        ("FluxPipeline", 0.05, None),
        (
            "FluxPipeline",
            0.0,
            "strength = 0.0: leaves no step of num_inference_steps = 10: make it above 0, or give more steps",
        ),
    ],
)
def test_a_strength_that_leaves_no_step_is_refused(name: str, strength: float, words: str | None) -> None:
    found = told(name, asked(name, "image", strength=strength))
    assert len(found) == (words is not None)
    assert words is None or found[0].startswith(words)


def test_a_strength_that_leaves_a_consistency_model_too_few_steps_is_refused() -> None:
    arguments = '{"original_inference_steps":20}'
    given = asked("LatentConsistencyModelPipeline", "image", strength=0.4, arguments=arguments)
    assert told("LatentConsistencyModelPipeline", given) == [
        "strength = 0.4: leaves 8 of original_inference_steps = 20, and num_inference_steps = 10: make it at "
        "least 0.5, or give fewer steps"
    ]
    assert told("LatentConsistencyModelPipeline", replace(given, strength=0.5)) == []


def test_steps_are_painted_as_diffusers_cuts_them() -> None:
    whole, begun, every = (Strength(0.5, steps) for steps in ("whole", "begun", "all"))  # type: ignore[arg-type]
    assert [whole.painted(10, one) for one in (0.0, 0.29, 0.3, 1.0)] == [0, 2, 3, 10]
    assert [begun.painted(10, one) for one in (0.0, 0.29, 0.3, 1.0)] == [0, 3, 3, 10]
    assert every.painted(10, 0.3) == 10


@pytest.mark.parametrize(
    ("name", "key", "settings", "count"),
    [
        ("StableDiffusionPipeline", "image", {"strength": 0.5}, 2 * 5),
        ("StableDiffusionPipeline", "image", {}, 2 * 8),
        ("StableDiffusionPipeline", "image", {"strength": 0.5, "scheduler": "Heun"}, 2 * 9),
        # UNet and ControlNet.
        ("StableDiffusionPipeline", "control_image", {}, 2 * 2 * 10),
        ("StableDiffusionPipeline", "image+control_image", {"strength": 0.5}, 2 * 2 * 5),
        ("StableDiffusionXLPAGPipeline", "control_image", {}, 2 * 3 * 10),
        ("FluxPipeline", "image", {"strength": 0.55}, 6),
        ("FluxPipeline", "control_image", {"arguments": '{"true_cfg_scale":4}'}, 3 * 10),
        ("QwenImagePipeline", "control_image", {}, 3 * 10),
        ("LatentConsistencyModelPipeline", "image", {"strength": 0.5}, 10),
        ("KandinskyV22CombinedPipeline", "image", {"strength": 0.5}, 2 * 25 + 2 * 5),
        ("StableDiffusionInstructPix2PixPipeline", "image", {}, 3 * 10),
    ],
)
def test_slots_are_counted_as_the_task_is_painted(
    name: str, key: str, settings: dict[str, Any], count: int
) -> None:
    request = asked(name, key, **settings)
    assert painted_by(find_pipeline(name), request).slot_evaluations(request) == count


def test_a_strength_that_is_left_open_is_that_of_the_class_that_paints() -> None:
    assert asked("StableDiffusionPipeline", "image").strength == 0.8
    assert asked("StableDiffusionXLPipeline", "image").strength == 0.3
    assert asked("StableDiffusionXLPipeline", "image", strength=0.7).strength == 0.7
    assert asked("FluxKontextPipeline", "image", strength=0.7).strength is None
    unknown = settled(None, replace(BASE, image=PICTURE, strength=0.7).to_mapping())
    assert unknown["strength"] == 0.7


def test_a_conditioning_scale_that_is_left_open_is_one_whatever_class_paints() -> None:
    # diffusers' own is 0.5: outputs that were rendered with 1 would be asked for other images.
    request = asked("StableDiffusionPipeline", "image+mask_image+control_image")
    assert painted_by(find_pipeline("StableDiffusionPipeline"), request).conditioning_scale == 0.5
    assert request.controlnet_conditioning_scale == 1.0
    assert "controlnet_conditioning_scale" not in request.identity()


def test_settings_about_pictures_that_are_not_there_are_at_their_defaults() -> None:
    given = {"strength": 0.5, "fit": "pad", "controlnet_conditioning_scale": 0.3, "ip_adapter_scale": 0.2}
    assert asked("StableDiffusionPipeline", "", **given) == asked("StableDiffusionPipeline", "")
    controlled = asked("StableDiffusionPipeline", "control_image", **given)
    assert (controlled.fit, controlled.strength) == ("pad", None)
    assert (controlled.controlnet, controlled.controlnet_conditioning_scale) == (CONTROLNET, 0.3)


@pytest.mark.parametrize(
    ("name", "pictures", "own", "words"),
    [
        (
            "StableDiffusionPipeline",
            [],
            {"strength": 0.5},
            "strength = 0.5: does nothing without image: give image, or remove it",
        ),
        (
            "StableDiffusionPipeline",
            ["image"],
            {"controlnet_conditioning_scale": 0.5},
            "controlnet_conditioning_scale = 0.5: does nothing without control_image: give control_image, or",
        ),
        (
            "StableDiffusionPipeline",
            [],
            {"fit": "pad"},
            'fit = "pad": does nothing without a picture: give image,',
        ),
        (
            "FluxKontextPipeline",
            ["image"],
            {"strength": 0.5},
            "strength = 0.5: FluxKontextPipeline takes none: remove it",
        ),
        (
            "FluxControlPipeline",
            ["control_image"],
            {"controlnet_conditioning_scale": 0.5},
            "controlnet_conditioning_scale = 0.5: FluxControlPipeline has no ControlNet: remove it",
        ),
    ],
)
def test_what_a_line_gives_itself_in_vain_is_told(
    name: str, pictures: list[str], own: dict[str, Any], words: str
) -> None:
    values = BASE.to_mapping() | dict.fromkeys(pictures, PICTURE) | own
    [one] = vain(find_pipeline(name), values, own)
    assert str(one).startswith(words)
    assert list(vain(find_pipeline(name), values, {})) == []


def test_what_needs_no_class_to_be_known_is_in_vain_for_any() -> None:
    [one] = vain(None, BASE.to_mapping(), {"strength": 0.5})
    assert str(one) == "strength = 0.5: does nothing without image: give image, or remove it"
    assert list(vain(None, BASE.to_mapping() | {"image": PICTURE}, {"strength": 0.5})) == []


@pytest.mark.parametrize(
    ("name", "key", "changes", "words"),
    [
        ("FluxKontextPipeline", "image", {"strength": 0.5}, "strength = 0.5: FluxKontextPipeline takes none"),
        (
            "FluxControlPipeline",
            "control_image",
            {"controlnet": "[]", "controlnet_conditioning_scale": 0.5},
            "controlnet_conditioning_scale = 0.5: FluxControlPipeline has no ControlNet: remove it",
        ),
        ("FluxControlPipeline", "control_image", {}, "controlnet = "),
    ],
)
def test_a_request_that_says_what_its_class_does_not_take_is_refused(
    name: str, key: str, changes: dict[str, Any], words: str
) -> None:
    [one] = told(name, replace(asked(name, key), **changes))
    assert one.startswith(words)


def test_the_call_of_a_task_gets_what_its_class_takes() -> None:
    image = asked("StableDiffusionPipeline", "image", strength=0.5)
    call = painted_by(find_pipeline("StableDiffusionPipeline"), image).call_arguments(image)
    assert call["strength"] == 0.5
    # Its size is that of the picture.
    assert call.keys().isdisjoint({"height", "width", "controlnet_conditioning_scale"})
    inpainting = asked("FluxPipeline", "image+mask_image")
    call = painted_by(find_pipeline("FluxPipeline"), inpainting).call_arguments(inpainting)
    assert (call["height"], call["strength"]) == (1024, 0.6)


def test_a_controlnet_has_as_much_to_say_as_its_own_scale_and_that_of_all() -> None:
    one = asked("StableDiffusionPipeline", "control_image", controlnet_conditioning_scale=0.5)
    kind = painted_by(find_pipeline("StableDiffusionPipeline"), one)
    assert kind.pictures == {"control_image": "image"}
    assert kind.call_arguments(one)["controlnet_conditioning_scale"] == 0.25
    two = '[{"name":"a","revision":"r","scale":0.5},{"name":"b","revision":"r","scale":1.0}]'
    several = replace(one, controlnet=two)
    assert kind.call_arguments(several)["controlnet_conditioning_scale"] == [0.25, 0.5]


def test_weights_in_texts_count_in_tasks_as_in_text_alone() -> None:
    weighted = {"syntax": "a1111"}
    assert told("StableDiffusionXLPipeline", asked("StableDiffusionXLPipeline", "image", **weighted)) == []
    [words] = told("FluxPipeline", asked("FluxPipeline", "image", **weighted))
    assert words.startswith(
        'syntax = "a1111": only StableDiffusionPipeline or StableDiffusionXLPipeline take it'
    )


def test_the_classes_of_tasks_name_the_models_class_and_are_none_of_a_models_own() -> None:
    for name in admitted():
        for painting in map(find_painting, find_pipeline(name).tasks.values()):
            assert (painting.of is None) == (painting.name in admitted())


IP_ADAPTER = '[{"name":"ip","sha256":"' + "1" * 64 + '","image_encoder":"e","revision":"r"}]'


def test_an_ip_adapter_counts_where_a_picture_is_followed_and_in_no_other_request() -> None:
    given = {"ip_adapter": IP_ADAPTER, "ip_adapter_scale": 0.3}
    name = "StableDiffusionXLPipeline"
    assert asked(name, "image", **given) == asked(name, "image")
    followed = asked(name, "image+ip_adapter_image", **given)
    assert (followed.ip_adapter, followed.ip_adapter_scale) == (IP_ADAPTER, 0.3)
    assert pictures_of(followed) == ("image", "ip_adapter_image")
    assert painted_by(find_pipeline(name), followed).name == "StableDiffusionXLImg2ImgPipeline"
    assert called("image+ip_adapter_image") == "image-to-image by IP-Adapter"
    assert called("ip_adapter_image") == "text-to-image by IP-Adapter"
    assert told(name, followed) == []


def test_a_picture_to_follow_needs_an_ip_adapter_and_a_class_that_takes_one() -> None:
    [words] = told("StableDiffusionPipeline", asked("StableDiffusionPipeline", "ip_adapter_image"))
    assert "needs an IP-Adapter: give `ip_adapter` at the manifest's top, or remove" in words
    [words] = told("FluxPipeline", asked("FluxPipeline", "ip_adapter_image", ip_adapter=IP_ADAPTER))
    assert "FluxPipeline takes no IP-Adapter here, only StableDiffusionPipeline and Stable" in words
    lonely = replace(asked("StableDiffusionPipeline", ""), ip_adapter=IP_ADAPTER)
    [words] = told("StableDiffusionPipeline", lonely)
    assert "follows an ip_adapter_image: give it too, or remove ip_adapter" in words
    own = {"ip_adapter_scale": 0.3, "ip_adapter": IP_ADAPTER}
    for_nothing = [str(one) for one in vain(None, own, own)]
    assert len(for_nothing) == 2 and all(
        "does nothing without ip_adapter_image" in one for one in for_nothing
    )
