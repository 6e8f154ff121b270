"""LoRA files for the built-in model `shapes`, of random weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file

from jobs.models.models import BUILT_IN
from worker.renderers.pipelines import load_pipeline

RANK = 2


@cache
def _attention_layers() -> dict[str, tuple[int, int]]:
    """Each attention layer of the UNet of `shapes` -> its outputs and inputs."""
    unet = load_pipeline("shapes", BUILT_IN["shapes"].revision, "fp32", "cpu").unet
    return {
        name: (module.out_features, module.in_features)
        for name, module in unet.named_modules()
        if name.endswith(("to_q", "to_v"))
    }


def random_lora(file: Path, seed: int, size: float = 0.3) -> None:
    """Writes a LoRA as diffusers' `save_lora_weights` does; `size` is the spread of its weights."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in _attention_layers().items():
        tensors[f"unet.{name}.lora_A.weight"] = torch.randn(RANK, inputs, generator=random) * size
        tensors[f"unet.{name}.lora_B.weight"] = torch.randn(outputs, RANK, generator=random) * size
    save_file(tensors, file, metadata={"format": "pt"})
