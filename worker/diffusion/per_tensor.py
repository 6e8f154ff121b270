"""What follows from a tensor's contents, computed once for all the steps in which a pipeline passes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch.utils.weak import WeakTensorKeyDictionary

Value = TypeVar("Value")


class PerTensor(Generic[Value]):
    """Values by tensor objects: each is computed again when the tensor was written to, forgotten with it."""

    def __init__(self) -> None:
        self._known: Any = WeakTensorKeyDictionary()

    def of(self, tensor: torch.Tensor, compute: Callable[[torch.Tensor], Value]) -> Value:
        """The value of a tensor. compute: the same function for every tensor of this object."""
        version = tensor._version if not tensor.is_inference() else 0
        known = self._known.get(tensor)
        if known is None or known[0] != version:
            known = self._known[tensor] = (version, compute(tensor))
        return known[1]  # type: ignore[no-any-return]
