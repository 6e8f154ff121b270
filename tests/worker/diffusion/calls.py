"""Calls of a denoiser like those of diffusers' pipelines, and what is learned from them."""

from __future__ import annotations

from typing import Any

import torch

from worker.diffusion.call_rules import CallRules, learn


def call_of(images: int, *, slots: int = 2, length: int = 7, value: float = 1.0) -> dict[str, Any]:
    """A call like those of diffusers' pipelines: every kind of argument there is."""
    count = images * slots
    return {
        "hidden_states": torch.full((count, 4, 8), value),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.full((count, length, 3), value),
        "added": {"time_ids": torch.full((count, 6), value), "scale": 1.0},
        "image_rotary_emb": (torch.ones(16, 2), torch.zeros(16, 2)),
        "texts": [torch.full((length, 3), value) for _ in range(count)],
        "flat": torch.full((count * 5, 3), value),
        "return_dict": False,
        "mask": None,
    }


def output_of(call: dict[str, Any]) -> tuple[torch.Tensor]:
    return (call["hidden_states"] * 2,)


def learned(**options: Any) -> CallRules:
    one, two = call_of(1, **options), call_of(2, **options)
    return learn([((one, output_of(one)), (two, output_of(two)))])
