"""What a precision means for a model's parts."""

from __future__ import annotations

import pytest
import torch

from worker.diffusion.precision import overflow_warning, resolve_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_is_bf16_on_a_gpu_and_fp32_on_a_cpu() -> None:
    assert resolve_precision("auto", GPU).weights == torch.bfloat16
    assert resolve_precision("auto", CPU).weights == torch.float32


@pytest.mark.parametrize(("name", "device"), [("fp16", GPU), ("fp16", CPU), ("amp", GPU)])
def test_what_was_trained_in_bfloat16_is_warned_of_in_float16(name: str, device: torch.device) -> None:
    parts = ["AutoencoderKL", "T5EncoderModel", "FluxTransformer2DModel", "CLIPTextModel"]
    said = overflow_warning(resolve_precision(name, device), parts)
    assert said.startswith(f"precision = {name}: FLUX and T5 were trained in bfloat16")
    assert said.endswith("use bf16 if that happens")
    alone = overflow_warning(resolve_precision(name, device), ["T5EncoderModel", "T5EncoderModel"])
    assert "T5 was trained" in alone
    assert overflow_warning(resolve_precision(name, device), ["AutoencoderKL", "CLIPTextModel"]) == ""


@pytest.mark.parametrize(("name", "device"), [("bf16", GPU), ("fp32", GPU), ("auto", GPU), ("amp", CPU)])
def test_other_precisions_need_no_warning(name: str, device: torch.device) -> None:
    assert overflow_warning(resolve_precision(name, device), ["T5EncoderModel"]) == ""
