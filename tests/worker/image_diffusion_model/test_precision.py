"""What each precision computes in, and what it leaves as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.image_diffusion_model.models import SIZE, model_of
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.shapes_random import build

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")


def test_amp_computes_linear_layers_in_bfloat16_and_decodes_in_float32() -> None:
    model = model_of(build(), "amp")
    linear: list[torch.dtype] = []
    decoded: list[torch.dtype] = []
    layer = model.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_out[0]
    assert isinstance(layer, torch.nn.Linear)
    hooks = [
        layer.register_forward_hook(lambda module, args, output: linear.append(args[0].dtype)),
        model.vae.decoder.conv_in.register_forward_hook(
            lambda module, args, output: decoded.append(args[0].dtype)
        ),
    ]
    assert model.unet.dtype == torch.float32
    picture = model.prompt_to_img("a cat", num_inference_steps=2, progress=False, **SIZE)[0]
    for hook in hooks:
        hook.remove()
    assert set(linear) == {torch.bfloat16}
    assert set(decoded) == {torch.float32}
    assert np.asarray(picture).std() > 5


@pytest.mark.parametrize(
    ("precision", "unet", "vae"),
    [
        ("auto", torch.float32, torch.float32),
        ("bf16", torch.bfloat16, torch.bfloat16),
        ("fp16", torch.float16, torch.float32),
    ],
)
def test_half_precision_weights_paint_about_the_same_picture(
    model: ImageDiffusionModel, precision: str, unet: torch.dtype, vae: torch.dtype
) -> None:
    half = model_of(build(), precision)
    assert (half.unet.dtype, half.text_encoder.dtype, half.vae.dtype) == (unet, unet, vae)
    settings = {"num_inference_steps": 3, "seeds": 4, "guidance_scale": 2.0, "progress": False, **SIZE}
    ours = np.asarray(half.prompt_to_img("a cat", **settings)[0], dtype=float)
    exact = np.asarray(model.prompt_to_img("a cat", **settings)[0], dtype=float)
    assert np.abs(ours - exact).mean() < 3


def test_half_weights_go_up_to_fp32_and_come_back_bit_for_bit() -> None:
    model = model_of(build(), "bf16")
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    with model.in_fp32():
        assert model.precision.name == "fp32"
        assert {model.unet.dtype, model.vae.dtype, model.text_encoder.dtype} == {torch.float32}
    assert model.precision.name == "bf16"
    assert all(torch.equal(value, before[name]) for name, value in model.unet.state_dict().items())


def test_memory_that_runs_out_on_the_way_to_fp32_leaves_the_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of(build(), "bf16")
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    to = torch.nn.Module.to
    parameters = iter(list(model.unet.parameters())[:5])

    def halfway(module: torch.nn.Module, *arguments: Any) -> torch.nn.Module:
        if module is model.unet and arguments[-1] is torch.float32:
            for parameter in parameters:
                parameter.data = parameter.data.float()
            raise torch.OutOfMemoryError("out of memory")
        return to(module, *arguments)

    monkeypatch.setattr(torch.nn.Module, "to", halfway)
    with pytest.raises(torch.OutOfMemoryError), model.in_fp32():
        pytest.fail("memory ran out before")
    assert model.precision.name == "bf16"
    after = model.unet.state_dict()
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert all(torch.equal(after[name], value) for name, value in before.items())
