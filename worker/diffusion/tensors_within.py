"""The tensors that a value holds, wherever they are in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch


def tensors_within(value: Any) -> list[torch.Tensor]:
    """Every tensor that a value holds, each object once.

    Looks into lists, tuples, sets, mappings, dataclasses and other objects with attributes of their own, such
    as a model's output and its cache of keys and values; not into classes, functions and modules.
    """
    found: list[torch.Tensor] = []
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            found.append(one)
        else:
            waiting.extend(_parts(one))
    return found


def _parts(value: Any) -> Iterable[Any]:
    match value:
        case str() | bytes() | type() | torch.nn.Module():
            return ()
        case Mapping():
            inside: list[Any] = [*value.values()]
        case list() | tuple() | set() | frozenset():
            inside = [*value]
        case _ if callable(value):
            return ()
        case _ if dataclasses.is_dataclass(value):
            inside = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
        case _:
            inside = []
    return [*inside, *getattr(value, "__dict__", {}).values()]
