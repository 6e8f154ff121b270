"""An image_id is every setting that the picture depends on, and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from jobs.entry import derived_seed
from jobs.request import REQUEST_FIELDS, ImageRequest

FOX = ImageRequest(prompt="a red fox", seed=42, model="org/sd", revision="abc123")

OTHER = {
    "prompt": "a red fox ",
    "negative_prompt": "blurry",
    "height": 520,
    "width": 520,
    "num_inference_steps": 51,
    "guidance_scale": 7.0,
    "scheduler": "DDIM",
    "seed": 0,
    "revision": "abc124",
    "precision": "fp32",
    "image_format": "webp",
    "init_latents": "0" * 64,
    "arguments": '{"max_sequence_length":256}',
    "syntax": "a1111",
    "long_prompts": "chunk",
    "image": "1" * 64,
    "mask_image": "2" * 64,
    "control_image": "3" * 64,
    "fit": "pad",
    "strength": 0.5,
    "controlnet": '[{"name":"edges","revision":"abc","scale":1.0}]',
    "controlnet_conditioning_scale": 0.5,
    "loras": '[{"name":"striped","sha256":"' + "4" * 64 + '","scale":0.8}]',
    "textual_inversions": '[{"name":"cat","token":"<cat>","sha256":"' + "5" * 64 + '"}]',
    "ip_adapter": '[{"name":"ip","sha256":"' + "6" * 64 + '","image_encoder":"e","revision":"abc"}]',
    "ip_adapter_image": "7" * 64,
    "ip_adapter_scale": 0.5,
}


def test_the_id_is_sixteen_digits_of_the_hash_of_the_canonical_json() -> None:
    message = (
        '{"guidance_scale":7.5,"height":512,"image_format":"png","init_latents":null,"negative_prompt":"",'
        '"num_inference_steps":50,"precision":"auto","prompt":"a red fox","revision":"abc123",'
        '"scheduler":"LMS","seed":42,"width":512}'
    )
    assert FOX.identity() == message
    assert FOX.image_id == hashlib.sha256(message.encode()).hexdigest()[:16]
    # Outputs hold these ids: another value would render every dataset again.
    assert FOX.image_id == "9eac6214031a4331"


def test_every_setting_is_tried() -> None:
    assert {*OTHER, "model", "image_quality"} == set(REQUEST_FIELDS)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_another_setting_is_another_image(name: str) -> None:
    changed = dataclasses.replace(FOX, **{name: OTHER[name]})  # type: ignore[arg-type]
    assert changed.image_id != FOX.image_id


def test_the_models_label_is_no_part_of_the_identity() -> None:
    assert dataclasses.replace(FOX, model="/elsewhere/sd").image_id == FOX.image_id


def test_the_name_of_an_adapter_is_no_part_of_the_identity() -> None:
    striped, other = (
        dataclasses.replace(FOX, loras=f'[{{"name":"{name}","sha256":"{"4" * 64}","scale":0.8}}]')
        for name in ("striped", "other")
    )
    assert striped.image_id == other.image_id != FOX.image_id
    scaled = dataclasses.replace(FOX, loras=striped.loras.replace("0.8", "0.9"))
    assert scaled.image_id != striped.image_id


def test_the_quality_counts_where_the_format_has_one() -> None:
    assert dataclasses.replace(FOX, image_quality=50).image_id == FOX.image_id
    for image_format in ("jpeg", "webp"):
        lossy = dataclasses.replace(FOX, image_format=image_format)
        assert dataclasses.replace(lossy, image_quality=50).image_id != lossy.image_id


def test_json_gives_the_request_back_and_text_beyond_ascii_as_it_is() -> None:
    request = dataclasses.replace(FOX, prompt='ein "Füchslein" 🦊\n', init_latents="1" * 64)
    assert "🦊" in request.to_json()
    assert ImageRequest.from_mapping(json.loads(request.to_json())) == request


def test_keys_that_are_no_setting_are_left_aside_and_missing_ones_have_their_default() -> None:
    given = {"prompt": "x", "seed": 0, "model": "m", "revision": "r", "file_name": "1.png"}
    assert ImageRequest.from_mapping(given) == ImageRequest(prompt="x", seed=0, model="m", revision="r")


@pytest.mark.parametrize(("scale", "guided"), [(1.0, False), (1.01, True), (7.5, True)])
def test_guidance_above_one_takes_two_rows(scale: float, guided: bool) -> None:
    assert dataclasses.replace(FOX, guidance_scale=scale).guided is guided


def test_a_derived_seed_hangs_on_the_jobs_name_the_settings_and_the_number_among_equals() -> None:
    seed = derived_seed("cats", FOX, 0)
    assert 0 <= seed < 2**32
    assert derived_seed("cats", dataclasses.replace(FOX, seed=7), 0) == seed
    assert derived_seed("cats", dataclasses.replace(FOX, model="moved"), 0) == seed
    others = [
        derived_seed("dogs", FOX, 0),
        derived_seed("cats", FOX, 1),
        derived_seed("cats", dataclasses.replace(FOX, height=520), 0),
    ]
    assert len({seed, *others}) == 4
    # Seeds are not stored when they can be derived: another value would paint other pictures.
    assert seed == 3574491494


def test_the_keys_that_an_image_id_hashes_are_those_of_the_first_release() -> None:
    """Each key more would change every image_id there is, and every output would be rendered again.

    A field added to ImageRequest must be left out of `identity` while it is at its default; so this list
    never changes.
    """
    request = ImageRequest(prompt="a fox", seed=3, model="m", revision="r")
    assert sorted(json.loads(request.identity())) == [
        "guidance_scale",
        "height",
        "image_format",
        "init_latents",
        "negative_prompt",
        "num_inference_steps",
        "precision",
        "prompt",
        "revision",
        "scheduler",
        "seed",
        "width",
    ]
    assert request.image_id == "3ea19cc69b2e04ec"
    jpeg = json.loads(dataclasses.replace(request, image_format="jpeg").identity())
    assert set(jpeg) - set(json.loads(request.identity())) == {"image_quality"}
