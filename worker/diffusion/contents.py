"""What values are recognised by: equal for equal ones, whatever objects they are."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import Any

import torch

from worker.diffusion.per_tensor import PerTensor
from worker.diffusion.tensors_within import tensors_within

PLAIN = frozenset({type(None), str, bool, int, float})
"""Types of constants that are compared by their values."""


class Digests:
    """Digests of shared tensors, each computed once for a tensor object and forgotten with it."""

    def __init__(self) -> None:
        self._digests: PerTensor[Hashable] = PerTensor()

    def of(self, tensor: torch.Tensor) -> Hashable:
        """What the contents are recognised by: shape, dtype and SHA-256 of the bytes."""
        return self._digests.of(tensor, _digest)


def _digest(tensor: torch.Tensor) -> Hashable:
    contents = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    data = contents.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return tuple(tensor.shape), tensor.dtype, hashlib.sha256(data).hexdigest()


def constant(value: Any) -> Hashable:
    """Equal for equal constants: 1, 1.0 and True are told apart.

    What is not plain is known by what `repr` says of it. That does not tell what tensors within it hold:
    of those each is equal to itself alone, while it lives.
    """
    if type(value) in PLAIN:
        return type(value), value
    return (repr(value), id(value)) if tensors_within(value) else repr(value)


def content_of(value: Any, digests: Digests) -> Hashable | None:
    """What a value is recognised by for good, tensors by their contents.

    Looks into lists, tuples and mappings. None where there are tensors in anything else, such as a cache of
    keys and values: that cannot be recognised.
    """
    parts: list[Hashable] = []
    return tuple(parts) if _look(value, (), parts, digests) else None


def _look(value: Any, path: tuple[Any, ...], parts: list[Hashable], digests: Digests) -> bool:
    """Adds what a value is recognised by to `parts`; false where it cannot be."""
    match value:
        case torch.Tensor():
            parts.append((path, digests.of(value)))
        case Mapping():
            return all(_look(part, (*path, name), parts, digests) for name, part in value.items())
        case list() | tuple():
            return all(_look(part, (*path, index), parts, digests) for index, part in enumerate(value))
        case _ if type(value) in PLAIN or not tensors_within(value):
            parts.append((path, constant(value)))
        case _:
            return False
    return True
