"""A request becomes the pipeline's own call, and what the pipeline did not paint as asked is an error."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler

from jobs.errors import LatentsError, ModelError, RenderError
from jobs.request import ImageRequest
from tests.held_inputs import LATENTS, holding
from tests.tiny.families import FAMILIES
from worker.diffusion.painter import Painter

CAT = ImageRequest(
    prompt="a cat", height=64, width=64, num_inference_steps=2, guidance_scale=4.0, scheduler="default",
    seed=1, model="tiny", revision="1",
)  # fmt: skip


@lru_cache
def painter(family: str = "StableDiffusionXLPipeline") -> Painter:
    return Painter(FAMILIES[family].build())


@torch.no_grad()
def plainly(family: str, **arguments: Any) -> np.ndarray:
    """What a person's call of the pipeline gives."""
    pipeline = FAMILIES[family].build()
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(CAT.seed)
    sizes = {"height": CAT.height, "width": CAT.width, "num_inference_steps": CAT.num_inference_steps}
    [values] = pipeline(prompt=CAT.prompt, generator=generator, output_type="np", **sizes, **arguments).images
    return np.asarray(values)


def paint(request: ImageRequest, family: str = "StableDiffusionXLPipeline", **options: Any) -> np.ndarray:
    if (latents := options.pop("init_latents", None)) is not None:
        request, options["inputs"] = replace(request, init_latents=LATENTS), holding(latents)
    with torch.no_grad():
        return painter(family).paint(request, **options).values


def test_a_request_is_painted_as_the_pipeline_s_call_paints_it() -> None:
    xl = "StableDiffusionXLPipeline"
    assert np.array_equal(paint(CAT), plainly(xl, guidance_scale=4.0))
    other = replace(CAT, negative_prompt="blurry", guidance_scale=2.0)
    assert np.array_equal(paint(other), plainly(xl, guidance_scale=2.0, negative_prompt="blurry"))


def test_guidance_and_arguments_go_by_the_names_of_the_pipeline() -> None:
    request = replace(CAT, negative_prompt="ugly", arguments='{"max_sequence_length":16}')
    expected = plainly(
        "QwenImagePipeline", true_cfg_scale=4.0, negative_prompt="ugly", max_sequence_length=16
    )
    assert np.array_equal(paint(request, "QwenImagePipeline"), expected)


def test_a_named_sampler_shifts_noise_levels_as_the_model_needs_it() -> None:
    pipeline = FAMILIES["FluxPipeline"].build()
    pipeline.set_progress_bar_config(disable=True)
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, **flow)
    assert pipeline.scheduler.config.use_dynamic_shifting
    with torch.no_grad():
        [expected] = pipeline(
            prompt=CAT.prompt, height=64, width=64, num_inference_steps=2, guidance_scale=4.0,
            generator=torch.Generator().manual_seed(CAT.seed), output_type="np",
        ).images  # fmt: skip
    assert np.array_equal(paint(replace(CAT, scheduler="Flow UniPC"), "FluxPipeline"), expected)


def test_the_pipeline_itself_keeps_its_state() -> None:
    pipeline = painter().pipeline
    before = pipeline.scheduler
    first = paint(CAT)
    paint(replace(CAT, scheduler="DDIM", num_inference_steps=4))
    assert pipeline.scheduler is before
    assert np.array_equal(paint(CAT), first)


def test_latents_are_the_noise_that_the_pipeline_begins_with() -> None:
    side = 64 // painter().pipeline.vae_scale_factor
    latents = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(5))
    ours = paint(CAT, init_latents=latents[0].numpy())
    assert np.array_equal(ours, plainly("StableDiffusionXLPipeline", guidance_scale=4.0, latents=latents))


def test_latents_of_a_flow_pipeline_are_packed_as_it_packs_its_own() -> None:
    pipeline = painter("FluxPipeline").pipeline
    side = 64 // pipeline.vae_scale_factor
    channels = pipeline.transformer.config.in_channels // 4
    latents = torch.randn(channels, side, side, generator=torch.Generator().manual_seed(5))
    ours = paint(CAT, "FluxPipeline", init_latents=latents.numpy())
    packed = pipeline._pack_latents(latents[None], 1, channels, side, side)
    theirs = plainly("FluxPipeline", guidance_scale=4.0, latents=packed)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("family", ["StableDiffusionXLPipeline", "FluxPipeline"])
def test_latents_of_another_shape_are_an_error_that_says_so(family: str) -> None:
    with pytest.raises(
        LatentsError, match=r"init_latents: of shape .*: give latents of its shape, or remove"
    ):
        paint(CAT, family, init_latents=np.zeros((4, 6, 6), "float32"))


def test_latents_that_a_pipeline_packs_in_a_way_of_its_own_are_refused() -> None:
    with pytest.raises(LatentsError, match="init_latents: Flux2Pipeline packs them in a way of its own"):
        paint(CAT, "Flux2Pipeline", init_latents=np.zeros((4, 8, 8), "float32"))


def test_a_picture_of_another_size_is_an_error() -> None:
    pipeline = FAMILIES["StableDiffusionXLPipeline"].build()
    own = Painter(pipeline)
    pipeline.vae_scale_factor *= 2
    with torch.no_grad(), pytest.raises(RenderError, match="ask for a size that it takes"):
        own.paint(CAT)


def test_a_pipeline_that_is_not_rendered_is_refused_by_its_class() -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(sample_size=8, block_out_channels=(32, 64), layers_per_block=1,
                       down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    with pytest.raises(ModelError, match="DDPMPipeline"):
        Painter(DDPMPipeline(unet, DDPMScheduler()))
