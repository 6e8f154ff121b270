"""Weights where torch itself puts them, so that pictures of a model from a file can be compared in every bit.

On some CPUs the last bits of a product depend on where in memory its factors lie, modulo 64 bytes. Those of
a file that is mapped lie where the file has them: the same weights in another file give other bits.
"""

from __future__ import annotations

from itertools import chain

import torch
from diffusers import DiffusionPipeline


def copy_weights(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """The pipeline, each of its weights and buffers copied to memory of its own."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            for tensor in chain(part.parameters(), part.buffers()):
                tensor.data = tensor.data.clone()
    return pipeline
