"""How a family's images share forwards follows from a few calls, and three pictures prove it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jobs.errors import ModelError
from tests.tiny.families import FAMILIES
from worker.diffusion.call_rules import OneTimestep, Shared, SlotAxis, SlotList
from worker.diffusion.painter import Painter
from worker.engine.renderer import OutOfMemory
from worker.renderers.learning import Learned, learn_and_prove, of_size, sample_near, sample_of, switched


def learned(family: str, change: Any = None) -> Learned:
    pipeline = FAMILIES[family].build()
    if change is not None:
        change(pipeline)
    painter = Painter(pipeline)
    return learn_and_prove(painter, sample_of(painter))


def test_flux_shares_its_positions_and_has_the_rest_for_each_slot() -> None:
    found = learned("FluxPipeline")
    assert found.batching == "exact"
    rules = found.rules["transformer"].inputs
    assert {rules[name,] for name in ("txt_ids", "img_ids")} == {Shared()}
    own = ("hidden_states", "timestep", "pooled_projections", "encoder_hidden_states")
    assert {rules[name,] for name in own} == {SlotAxis(0, 1)}
    assert found.slots == (1, 1), "its guidance is embedded, or a call of its own"


@pytest.mark.parametrize("family", ["FluxPipeline", "StableDiffusionXLPipeline"])
def test_no_two_forwards_of_the_proof_pass_without_a_sign_of_progress(family: str) -> None:
    """Those of a picture that is painted by itself count as one."""
    painter = Painter(FAMILIES[family].build())
    forwards, silent = [0], [0]

    def moved() -> None:
        silent.append(0)

    def count(*_: object) -> None:
        forwards[0] += 1
        silent[-1] += 1

    sample = sample_of(painter)
    for module in painter.denoisers.values():
        module.register_forward_hook(count)
    assert learn_and_prove(painter, sample, moved=moved).batching == "exact"
    assert forwards[0] > 20
    assert max(silent) <= 8, "four steps, with a call for each text"


def test_z_image_gives_lists_of_slots() -> None:
    found = learned("ZImagePipeline")
    rules = found.rules["transformer"]
    assert {rules.inputs[name,] for name in ("x", "cap_feats")} == {SlotList(1)}
    assert rules.outputs[0,] == SlotList(1)
    assert found.slots == (1, 2)


def test_a_unet_has_one_timestep_for_all_its_slots() -> None:
    found = learned("StableDiffusionXLPipeline")
    assert found.rules["unet"].inputs["timestep",] == OneTimestep()
    assert found.slots == (1, 2)


def test_a_pipeline_that_cannot_paint_two_guided_images_is_learned_from_unguided_ones() -> None:
    assert learned("PRXPipeline").batching == "exact"


def test_the_sample_is_small_and_one_that_the_pipeline_takes() -> None:
    for family in ("StableDiffusionXLPipeline", "PixArtSigmaPipeline", "HunyuanDiTPipeline"):
        painter = Painter(FAMILIES[family].build())
        sample = sample_of(painter)
        assert sample.height == sample.width < 256
        with torch.no_grad():
            assert painter.paint(sample).finite


def test_guidance_is_switched_by_the_argument_that_switches_it() -> None:
    flux = Painter(FAMILIES["FluxPipeline"].build())
    on = switched(flux.kind, sample_of(flux), 3.0)
    assert (on.guidance_scale, on.arguments) == (flux.kind.guidance_scale, '{"true_cfg_scale":4}')
    xl = Painter(FAMILIES["StableDiffusionXLPipeline"].build())
    assert switched(xl.kind, sample_of(xl), 0.0).guidance_scale == 1.0


def test_a_denoiser_whose_output_grows_otherwise_is_rendered_alone() -> None:
    def pool(pipeline: Any) -> None:
        forward = pipeline.unet.forward

        def without_slots(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)[0]
            # A list of one more than it has slots.
            return (output, [0] * (len(output) + 1))

        pipeline.unet.forward = without_slots

    found = learned("StableDiffusionXLPipeline", pool)
    assert (found.batching, found.slots) == ("alone", (1, 2))
    assert "items for one image" in found.reason


def test_memory_that_runs_out_for_two_images_is_no_reason_to_render_alone() -> None:
    def little(pipeline: Any) -> None:
        def no_memory(_module: Any, _args: Any, call: Any) -> None:
            if len(call["hidden_states"]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")

        pipeline.transformer.register_forward_pre_hook(no_memory, with_kwargs=True)

    with pytest.raises(OutOfMemory):
        learned("FluxPipeline", little)


def test_images_that_come_out_different_refuse_the_model() -> None:
    def mix(pipeline: Any) -> None:
        def lean(_module: Any, _args: Any, output: Any) -> Any:
            return (output[0] * 0.5 + 0.5 * output[0].mean(0, keepdim=True), *output[1:])

        pipeline.unet.register_forward_hook(lean)

    with pytest.raises(ModelError, match="StableDiffusionXLPipeline: images that share forwards come out"):
        learned("StableDiffusionXLPipeline", mix)


def test_a_class_that_paints_an_area_alone_is_learned_from_a_picture_of_one_that_it_takes() -> None:
    kontext, hidream = (
        Painter(FAMILIES[name].build()) for name in ("FluxKontextPipeline", "HiDreamImagePipeline")
    )
    sample = sample_of(kontext)
    assert (sample.height, sample.width, sample.arguments) == (64, 64, '{"max_area":4096}')
    wide = of_size(kontext.kind, sample, 512, 1024)
    assert (wide.height, wide.width, wide.arguments) == (512, 1024, '{"max_area":524288}')
    side = 128 * hidream.pipeline.vae_scale_factor
    assert (sample_near(hidream, 64).height, sample_near(hidream, 64).width) == (side, side)
