"""Modules that compute in float32 for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_float32(
    modules: Iterable[torch.nn.Module], formats: Iterable[torch.dtype] = (torch.float16, torch.bfloat16)
) -> Iterator[None]:
    """Inside, the modules' weights of these formats are float32; they come back bit for bit.

    Not by a module's own `to`: that would bring those back in half precision which are kept in float32.
    """
    tensors = {id(one): one for module in modules for one in [*module.parameters(), *module.buffers()]}
    half = [(one, one.dtype) for one in tensors.values() if one.dtype in tuple(formats)]
    try:
        # Memory may run out with half of them converted: that is taken back too.
        for one, _format in half:
            one.data = one.data.float()
        yield
    finally:
        for one, dtype in half:
            one.data = one.data.to(dtype)
