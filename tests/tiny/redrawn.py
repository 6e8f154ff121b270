"""Weights drawn again for a tiny model, so that all that it is given shows in what it gives."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def redrawn(module: Module, gain: float = 1.0) -> Module:
    """Draw every weight of `module` again, and return it in evaluation mode.

    A matrix keeps the size of what it is given, times `gain`; scales of norms lie around 1, biases around 0.
    Layers that begin at zero (output layers, modulations, gates) would otherwise hide the prompt.
    Call it inside `random_weights`.
    """
    for name, weights in module.named_parameters():
        each = weights.numel() // max(1, len(weights))
        if each > 1:
            weights.normal_(0, gain / math.sqrt(each))
        elif name.endswith(("weight", "gamma", "scale")):
            weights.normal_(1, 0.1)
        else:
            weights.normal_(0, 0.1)
    return module.eval()
