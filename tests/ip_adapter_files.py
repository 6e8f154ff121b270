"""IP-Adapters and an image encoder with random weights, for the tiny pipelines that have a UNet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from jobs.adapter_files.ip_adapter_file import Projection
from tests.tiny.family import random_weights

HIDDEN, PROJECTED = 16, 8
"""Widths of what the image encoder gives: its states', its embedding's."""
_RENAMED = (
    (r"\.ln0\.", ".0.norm1."),
    (r"\.ln1\.", ".0.norm2."),
    (r"\.attn\.to_out\.0\.", ".0.to_out."),
    (r"\.attn\.", ".0."),
    (r"\.ff\.0\.", ".1.0."),
    (r"\.ff\.1\.net\.0\.proj\.", ".1.1."),
    (r"\.ff\.1\.net\.2\.", ".1.3."),
)
"""diffusers' names of a resampler's parts -> those in files."""


def image_encoder() -> CLIPVisionModelWithProjection:
    """What sees pictures of 32 x 32 in four patches."""
    config = CLIPVisionConfig(
        hidden_size=HIDDEN, intermediate_size=16, projection_dim=PROJECTED, num_hidden_layers=2,
        num_attention_heads=2, image_size=32, patch_size=16,
    )  # fmt: skip
    with random_weights():
        return CLIPVisionModelWithProjection(config).eval()


def save_image_encoder(folder: Path) -> Path:
    """The folder, with an image encoder as save_pretrained() writes it."""
    image_encoder().save_pretrained(folder)
    return folder


def ip_adapter_tensors(unet: Any, kind: Projection = "plain", seed: int = 1) -> dict[str, torch.Tensor]:
    """An IP-Adapter for a UNet and the image encoder above, by the names in its file."""
    draw, width = torch.Generator().manual_seed(seed), unet.config.cross_attention_dim
    projected = {"plain": _plain, "full": _full, "plus": _plus}[kind](width, draw)
    tensors = {f"image_proj.{name}": tensor for name, tensor in projected.items()}
    crossing = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
    modules = dict(unet.named_modules())
    for place, name in enumerate(crossing):
        inner = modules[name.removesuffix(".processor")].to_k.weight.shape[0]
        for part in ("to_k_ip", "to_v_ip"):
            key = f"ip_adapter.{2 * place + 1}.{part}.weight"
            tensors[key] = torch.randn(inner, width, generator=draw) * 0.3
    return tensors


def save_ip_adapter(file: Path, unet: Any, kind: Projection = "plain", seed: int = 1) -> Path:
    """The file, with such an IP-Adapter."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(ip_adapter_tensors(unet, kind, seed), file)
    return file


def _plain(width: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "proj.weight": torch.randn(4 * width, PROJECTED, generator=draw),
        "proj.bias": torch.randn(4 * width, generator=draw),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }


def _full(width: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "proj.0.weight": torch.randn(HIDDEN, HIDDEN, generator=draw),
        "proj.0.bias": torch.randn(HIDDEN, generator=draw),
        "proj.2.weight": torch.randn(width, HIDDEN, generator=draw),
        "proj.2.bias": torch.randn(width, generator=draw),
        "proj.3.weight": torch.ones(width),
        "proj.3.bias": torch.zeros(width),
    }


def _plus(width: int, draw: torch.Generator) -> dict[str, torch.Tensor]:
    with random_weights(draw.initial_seed()):
        resampler = IPAdapterPlusImageProjection(
            HIDDEN, width, hidden_dims=64, depth=4, heads=1, num_queries=4
        )
    tensors = {name: tensor.clone() for name, tensor in resampler.state_dict().items()}
    for layer in range(4):
        key, value = (tensors.pop(f"layers.{layer}.attn.to_{part}.weight") for part in "kv")
        tensors[f"layers.{layer}.attn.to_kv.weight"] = torch.cat([key, value])
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
