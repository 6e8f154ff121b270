"""Pictures equal those of diffusers' own pipeline, whatever shares the call."""

from __future__ import annotations

import logging
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LMSDiscreteScheduler

from jobs.schedulers import SCHEDULERS
from tests.worker.image_diffusion_model.models import (
    BETAS,
    PROMPTS,
    SIZE,
    floats,
    generators,
    model_of,
    reference,
)
from worker.diffusion.build_scheduler import build_scheduler
from worker.image_diffusion_model import ImageDiffusionModel

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("name", ["LMS", "DDIM"])
def test_pictures_equal_diffusers_own_pipeline(
    pipe: Any, model: ImageDiffusionModel, name: str, guidance: float
) -> None:
    scheduler = LMSDiscreteScheduler(**BETAS) if name == "LMS" else DDIMScheduler(**BETAS)
    theirs = reference(pipe, scheduler)
    settings = {"num_inference_steps": 10, "guidance_scale": guidance, **SIZE}
    expected = theirs(PROMPTS, generator=generators(1, 2), output_type="np", **settings).images

    latents = model.get_img_latents(
        model.get_prompt_embeds(PROMPTS), seeds=[1, 2], scheduler=name, **settings
    )
    assert np.abs(floats(model, latents) - expected).max() <= 1e-5
    assert expected.std() > 0.05

    pictures = model.prompt_to_img(PROMPTS, seeds=[1, 2], scheduler=name, progress=False, **settings)
    assert all(is_rounded(np.asarray(one), its) for one, its in zip(pictures, expected, strict=True))


def is_rounded(picture: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the picture is these floats, each right to 1e-5, times 255 and rounded.

    On some processors other numbers of slots differ in their last bits, and a float may lie between two
    bytes.
    """
    return bool(np.abs(picture - expected * 255.0).max() <= 0.5 + 255 * 1e-5)


@pytest.mark.parametrize("name", ["LMS", "DDIM"])
def test_own_latents_give_what_diffusers_gives_for_them(
    pipe: Any, model: ImageDiffusionModel, name: str
) -> None:
    start = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(9))
    kept = start.clone()
    theirs = reference(pipe, LMSDiscreteScheduler(**BETAS) if name == "LMS" else DDIMScheduler(**BETAS))
    settings = {"num_inference_steps": 5, "guidance_scale": 7.5, **SIZE}
    expected = theirs(PROMPTS, latents=start, output_type="np", **settings).images
    embeds = model.get_prompt_embeds(PROMPTS)
    for given in (start, start.numpy(), [start[0], start[1].numpy()]):
        latents = model.get_img_latents(embeds, img_latents=given, scheduler=name, **settings)
        assert np.abs(floats(model, latents) - expected).max() <= 1e-5
    assert torch.equal(start, kept)


def test_negative_prompts_equal_diffusers(pipe: Any, model: ImageDiffusionModel) -> None:
    theirs = reference(pipe, LMSDiscreteScheduler(**BETAS))
    settings = {"num_inference_steps": 4, **SIZE}
    negatives = ["blurry", "a green square"]
    expected = theirs(
        PROMPTS, negative_prompt=negatives, generator=generators(1, 2), output_type="np", **settings
    ).images
    ours = model.prompt_to_img(PROMPTS, negative_prompts=negatives, seeds=[1, 2], progress=False, **settings)
    plain = model.prompt_to_img(PROMPTS, seeds=[1, 2], progress=False, **settings)
    for index in range(2):
        assert is_rounded(np.asarray(ours[index]), expected[index])
        assert not np.array_equal(np.asarray(ours[index]), np.asarray(plain[index]))


def test_every_sampler_in_one_mixed_call_equals_diffusers_pipeline_with_it_alone(
    small: Any, random_model: ImageDiffusionModel
) -> None:
    """Guided and unguided, nineteen samplers, 38 images in 32 slots: as if each had been by itself."""
    images = [(sampler, scale) for sampler in SCHEDULERS for scale in (1.0, 7.5)]
    latents = random_model.get_img_latents(
        random_model.get_prompt_embeds([f"a star {seed}" for seed in range(len(images))], "blurry"),
        32,
        32,
        6,
        [scale for _sampler, scale in images],
        seeds=range(len(images)),
        scheduler=[sampler.name for sampler, _scale in images],
        batch_size=16,
    )
    differences: dict[str, float] = {}
    for seed, (sampler, scale) in enumerate(images):
        table = random_model.scheduler_table(sampler.name, 6)
        assert table.coefficients is not None, f"{sampler.name}: {table.reason}"
        theirs = getattr(diffusers, sampler.class_name).from_config(small.scheduler.config, **sampler.options)
        expected = reference(small, theirs)(
            f"a star {seed}",
            negative_prompt="blurry",
            height=32,
            width=32,
            num_inference_steps=6,
            guidance_scale=scale,
            generator=generators(seed)[0],
            output_type="np",
        ).images[0]
        ours = floats(random_model, latents[seed : seed + 1])[0]
        differences[f"{sampler.name} at {scale}"] = float(np.abs(ours - expected).max())
        assert expected.std() > 0.05
    assert {name: apart for name, apart in differences.items() if not apart <= 1e-5} == {}


def test_a_scheduler_that_is_not_linear_runs_by_itself_among_others_and_equals_diffusers(
    pipe: Any, random_model: ImageDiffusionModel
) -> None:
    def thresholding() -> DDIMScheduler:
        # Not at most 1: thresholding then multiplies what a forward of other slots rounds, in diffusers too.
        config = random_model.scheduler_DDIM.config
        return DDIMScheduler.from_config(config, thresholding=True, sample_max_value=2.0)

    model = model_of(pipe)
    model.scheduler_LMS, model.scheduler_DDIM = random_model.scheduler_LMS, thresholding()
    table = model.scheduler_table("DDIM", 3)
    assert (table.reason, table.coefficients) == ("thresholding", None)
    names, scales = ["DDIM", "LMS", "DDIM", "Euler a"], [7.5, 3.0, 1.0, 2.0]
    prompts = [f"a star {seed}" for seed in range(4)]
    settings: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 3}
    mixed = model.get_img_latents(
        model.get_prompt_embeds(prompts), **settings, guidance_scale=scales, seeds=range(4), scheduler=names
    )
    for seed, (name, scale) in enumerate(zip(names, scales, strict=True)):
        theirs = thresholding() if name == "DDIM" else build_scheduler(name, pipe.scheduler.config)
        settings["guidance_scale"] = scale
        expected = reference(pipe, theirs)(
            prompts[seed], generator=generators(seed)[0], output_type="latent", **settings
        ).images
        apart = np.abs(floats(model, mixed[seed : seed + 1]) - floats(model, expected)).max()
        assert apart <= 1e-5, name
        if name == "DDIM":
            embeds = model.get_prompt_embeds(prompts[seed])
            alone = model.get_img_latents(embeds, seeds=seed, scheduler=name, **settings)
            assert torch.equal(alone, expected), "as many slots as in diffusers, so the same bits"


def test_a_scheduler_without_a_table_is_warned_of_once_and_says_why(
    pipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(pipe)
    model.scheduler_DDIM = DDIMScheduler(**BETAS, thresholding=True)
    with caplog.at_level(logging.WARNING):
        for steps in (2, 2, 3):
            model.prompt_to_img(["a cat", "a dog"], 16, 16, steps, scheduler="DDIM", progress=False)
        model.prompt_to_img("a cat", 16, 16, 2, scheduler="LMS", progress=False)
    found = [
        record.getMessage()
        for record in caplog.records
        if record.name == "worker.diffusion.compiled_schedulers"
    ]
    assert found == [
        f"DDIM at {steps} steps has no table (thresholding): it steps by itself, image by image"
        for steps in (2, 3)
    ]
