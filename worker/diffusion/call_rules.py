"""What belongs to the slots of a denoiser's calls, learned from calls of one image and of two.

A call is the denoiser's arguments by name: tensors, numbers, texts, and lists, tuples and dicts of them.
Which of its tensors hold something for each slot follows from no shape (a guided image has two slots, and a
rotary table of two tensors looks like it), so it is learned: the same call is made for one image and for two,
and what grew belongs to the slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.diffusion.sharing_errors import Unlearnable

Call = Mapping[str, Any]
"""A denoiser's arguments by name."""
Path = tuple[str | int, ...]
"""Where a value stands in a call or an output: argument, then keys and indices."""

TIMESTEPS = frozenset({"timestep", "timesteps", "t"})


@dataclass(frozen=True, slots=True)
class SlotAxis:
    """A tensor with `each` entries for every slot along `axis`."""

    axis: int
    each: int


@dataclass(frozen=True, slots=True)
class SlotList:
    """A list with `each` items for every slot."""

    each: int


@dataclass(frozen=True, slots=True)
class OneTimestep:
    """A tensor of one number, the timestep of a call's slots: each slot gets a float32 of its own."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A tensor that all slots share, such as positions: calls meet where its contents are equal."""


Rule = SlotAxis | SlotList | OneTimestep | Shared


@dataclass(frozen=True, slots=True)
class CallRules:
    """The rules of one denoiser's calls; what has none is a constant, and calls meet where it is equal."""

    inputs: Mapping[Path, Rule]
    outputs: Mapping[Path, Rule]


# Learning.


def learn(pairs: Sequence[tuple[tuple[Call, Any], tuple[Call, Any]]]) -> CallRules:
    """The rules that follow from (call, output) of one image and of two, for each of a denoiser's calls.

    Raises Unlearnable where nothing grows, something grows by another factor than two or along two axes, or
    two calls say different things of one argument.
    """
    inputs: dict[Path, Rule] = {}
    outputs: dict[Path, Rule] = {}
    for (one, one_output), (two, two_output) in pairs:
        grown = _compared(one, two)
        sizes = [rule.each for rule in grown.values() if isinstance(rule, SlotAxis | SlotList)]
        if not sizes:
            raise Unlearnable("no argument of the call belongs to an image")
        slots = min(sizes)
        _add(inputs, grown, slots)
        _add(outputs, _compared(one_output, two_output), slots)
    return CallRules(inputs, outputs)


def _add(known: dict[Path, Rule], grown: Mapping[Path, Rule], slots: int) -> None:
    for path, rule in grown.items():
        if isinstance(rule, SlotAxis | SlotList):
            if rule.each % slots:
                raise Unlearnable(f"{written(path)} has {rule.each} entries for {slots} slots")
            each = rule.each // slots
            found: Rule = SlotAxis(rule.axis, each) if isinstance(rule, SlotAxis) else SlotList(each)
        else:
            found = rule
        if known.setdefault(path, found) != found:
            raise Unlearnable(f"{written(path)} belongs to the slots in some calls and not in others")


def _compared(one: Any, two: Any, path: Path = ()) -> dict[Path, Rule]:
    """The rules of a value, by how it grew from one image to two; `each` counts those of one image."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return {path: _of_tensor(one, two, path)}
    if isinstance(one, Mapping) and isinstance(two, Mapping) and one.keys() == two.keys():
        return _joined(_compared(one[name], two[name], (*path, name)) for name in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(two) == len(one):
            pairs = enumerate(zip(one, two, strict=True))
            return _joined(_compared(first, second, (*path, index)) for index, (first, second) in pairs)
        if len(two) == 2 * len(one) > 0:
            return {path: SlotList(len(one))}
        raise Unlearnable(f"{written(path)} has {len(one)} items for one image, {len(two)} for two")
    if isinstance(one, torch.Tensor | Mapping | list | tuple) or type(one) is not type(two):
        raise Unlearnable(f"{written(path)} is another kind of thing for two images")
    return {}


def _of_tensor(one: torch.Tensor, two: torch.Tensor, path: Path) -> Rule:
    shapes = f"{tuple(one.shape)} for one image, {tuple(two.shape)} for two"
    axes = [axis for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=False)) if a != b]
    if one.ndim != two.ndim or len(axes) > 1:
        raise Unlearnable(f"{written(path)} is {shapes}")
    if axes:
        [axis] = axes
        if two.shape[axis] != 2 * one.shape[axis]:
            raise Unlearnable(f"{written(path)} is {shapes}")
        return SlotAxis(axis, one.shape[axis])
    # A tensor of one number may be a table as well; of the arguments so called it is known.
    named = path[:1] and path[0] in TIMESTEPS
    return OneTimestep() if one.ndim == 0 or (one.numel() == 1 and named) else Shared()


def _joined(parts: Iterator[dict[Path, Rule]]) -> dict[Path, Rule]:
    return {path: rule for part in parts for path, rule in part.items()}


def written(path: Path) -> str:
    """`added_cond_kwargs.text_embeds`."""
    return ".".join(map(str, path)) if path else "the output"


# Storing.


def to_json(rules: CallRules) -> dict[str, Any]:
    """The rules as JSON values."""
    return {
        part: [[list(path), *_rule_json(rule)] for path, rule in found.items()]
        for part, found in (("inputs", rules.inputs), ("outputs", rules.outputs))
    }


def from_json(values: Mapping[str, Any]) -> CallRules:
    """The rules that `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    kinds: dict[str, Callable[..., Rule]] = {
        kind.__name__: kind for kind in (SlotAxis, SlotList, OneTimestep, Shared)
    }
    inputs, outputs = (
        {tuple(path): kinds[kind](*numbers) for path, kind, *numbers in values[part]}
        for part in ("inputs", "outputs")
    )
    return CallRules(inputs, outputs)


def _rule_json(rule: Rule) -> list[str | int]:
    match rule:
        case SlotAxis(axis, each):
            return ["SlotAxis", axis, each]
        case SlotList(each):
            return ["SlotList", each]
        case _:
            return [type(rule).__name__]
