"""LoRA files with random parts, made without training, and the inputs that hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from jobs.adapters import LORAS
from jobs.inputs.inputs import KeptInputs, kept_path

Tensors = dict[str, torch.Tensor]


def random_lora(
    model: Any,
    component: str,
    layers: Callable[[str], bool] = lambda name: name.endswith(("to_q", "to_v", "conv1")),
    *,
    seed: int = 1,
    rank: int = 4,
    strength: float = 0.3,
    dora: bool = False,
) -> Tensors:
    """A LoRA, or a DoRA, for those layers of a component whose names are chosen, under diffusers' names."""
    draw = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    for name, module in model.named_modules():
        layer = module.get_base_layer() if hasattr(module, "get_base_layer") else module
        if not (layers(name) and isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)):
            continue
        outputs, *inputs = layer.weight.shape
        ones = [1] * (len(inputs) - 1)
        down, up = (
            torch.randn(*shape, generator=draw) for shape in ((rank, *inputs), (outputs, rank, *ones))
        )
        tensors[f"{component}.{name}.lora_A.weight"] = down * strength
        tensors[f"{component}.{name}.lora_B.weight"] = up * strength
        if dora:
            tensors[f"{component}.{name}.lora_magnitude_vector"] = torch.rand(outputs, generator=draw) + 0.5
    assert tensors, "no layer was chosen"
    return tensors


def as_kohya(tensors: Tensors, alpha: float) -> Tensors:
    """A denoiser's LoRA as kohya's scripts name it, with an alpha for each layer."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        layer, _, part = name.partition(".lora_")
        kohya = "lora_unet_" + layer.partition(".")[2].replace(".", "_")
        renamed[f"{kohya}.lora_{'down' if part.startswith('A') else 'up'}.weight"] = tensor
        renamed[f"{kohya}.alpha"] = torch.tensor(alpha)
    return renamed


@dataclass(frozen=True, slots=True)
class LoraFolder:
    """Files by their hash, as a submission keeps them."""

    folder: Path

    @property
    def inputs(self) -> KeptInputs:
        """Where a request's files are."""
        return KeptInputs(self.folder)

    def keep(self, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> str:
        """Keeps a LoRA's file; returns its hash."""
        return self.keep_bytes(save(tensors, None if metadata is None else dict(metadata)))

    def keep_bytes(self, contents: bytes) -> str:
        """Keeps any file; returns its hash."""
        sha256 = hashlib.sha256(contents).hexdigest()
        path = kept_path(self.folder, sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
        return sha256

    def path(self, sha256: str) -> Path:
        """A kept file."""
        return kept_path(self.folder, sha256)


def loras(*given: tuple[str, float]) -> str:
    """What a request says of LoRAs, by hash and scale."""
    listed = [
        {"name": f"{sha256[:4]}.safetensors", "sha256": sha256, "scale": scale} for sha256, scale in given
    ]
    return LORAS.of_text(json.dumps(listed))
