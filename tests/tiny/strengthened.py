"""Random weights made large enough that a text shows in the picture."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def strengthened(
    module: _Module, factor: float = 2.0, *, kinds: tuple[type[nn.Module], ...] = (nn.Linear,)
) -> _Module:
    """Multiplies the weights of all layers of `kinds` by `factor`, and returns `module`, ready to infer.

    torch's own random weights make what they are given smaller, so a few layers on nothing is left of a text.
    A layer of zeros, as gates of untrained blocks are, gets torch's random weights first.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, kinds):
                layer: Any = part
                if not layer.weight.any():
                    layer.reset_parameters()
                layer.weight.mul_(factor)
    return module.eval()
