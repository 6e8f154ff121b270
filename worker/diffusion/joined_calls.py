"""How calls of one denoiser share a forward: their keys, how they are joined, how an output is split again.

Pure functions over calls, by the rules that `call_rules` learned; no pipeline is known here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch

from worker.diffusion.call_rules import (
    TIMESTEPS,
    Call,
    CallRules,
    OneTimestep,
    Path,
    Rule,
    Shared,
    SlotAxis,
    SlotList,
    written,
)
from worker.diffusion.contents import PLAIN, Digests, constant
from worker.diffusion.sharing_errors import UnknownCall


@dataclass(frozen=True, slots=True)
class Keyed:
    """What one call has in common with those it may share a forward with, and its slots."""

    key: Hashable
    slots: int


def keyed(rules: CallRules, call: Call, digests: Digests, any_form: frozenset[str] = frozenset()) -> Keyed:
    """The key of a call and its slots. any_form: arguments whose items may differ in form in one forward.

    Raises UnknownCall for a tensor or a list that no learned call had, and for arguments of different slots.
    """
    seen = _Seen(rules.inputs, digests, any_form)
    seen.look(call, ())
    if len(set(seen.counts.values())) != 1:
        each = ", ".join(f"{written(path)} {count}" for path, count in seen.counts.items())
        raise UnknownCall(f"the arguments are for different numbers of slots: {each}")
    slots = next(iter(seen.counts.values()))
    for path, count in seen.numbers.items():
        if count not in (1, slots):  # some repeat it for their slots
            raise UnknownCall(f"{written(path)} has {count} numbers for {slots} slots")
    return Keyed(tuple(seen.parts), slots)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen of a call so far."""

    rules: Mapping[Path, Rule]
    digests: Digests
    any_form: frozenset[str]
    # Of what a call holds alone, in its order: with the names and lengths, that says where each stands.
    parts: list[Hashable] = field(default_factory=list)
    counts: dict[Path, int] = field(default_factory=dict)
    """Slots, by the arguments that belong to them."""
    numbers: dict[Path, int] = field(default_factory=dict)
    """Timesteps, by their arguments."""

    # A method, because a function within `keyed` that calls itself would keep all of this until gc; and
    # every call of every step comes here, so what is most frequent is asked first.
    def look(self, value: Any, path: Path) -> None:
        match self.rules.get(path):
            case None if type(value) in PLAIN:
                self.parts.append((type(value), value))
            case SlotAxis() | SlotList() as rule:
                self.counts[path] = _slots_of(rule, value, path)
                self.parts.append(None if path[0] in self.any_form else _form(rule, value, path))
            case OneTimestep():
                self.numbers[path] = value.numel()
                self.parts.append(None)
            case Shared():
                self.parts.append(self.digests.of(value))
            case None if isinstance(value, torch.Tensor):
                raise UnknownCall(f"{written(path)} was not given when the pipeline was learned")
            case None if isinstance(value, list | tuple):
                self.parts.append(len(value))
                for index, part in enumerate(value):
                    self.look(part, (*path, index))
            case None if isinstance(value, Mapping):
                self.parts.append(tuple(value))
                for name, part in value.items():
                    self.look(part, (*path, name))
            case None:
                self.parts.append(constant(value))


def _slots_of(rule: SlotAxis | SlotList, value: Any, path: Path) -> int:
    fits = isinstance(value, torch.Tensor if isinstance(rule, SlotAxis) else list | tuple)
    entries = 0
    if fits:
        entries = value.size(rule.axis) if isinstance(rule, SlotAxis) else len(value)
    if not fits or entries % rule.each or entries == 0:
        raise UnknownCall(f"{written(path)} is not as it was when the pipeline was learned")
    return entries // rule.each


def _form(rule: SlotAxis | SlotList, value: Any, path: Path) -> tuple[Hashable, ...]:
    """What slots must have in common to stand in one tensor, or one list."""
    if isinstance(rule, SlotAxis):
        shape = list(value.shape)
        del shape[rule.axis]
        return (*shape, _timesteps_dtype(path, value))
    # A model may pad its items to the longest: those that meet are of the same forms.
    forms = tuple(map(_item_form, value))
    return forms[: rule.each] if len(set(forms)) == 1 else forms


def _item_form(item: Any) -> Hashable:
    """The form of a slot's item, which may be a list of parts itself."""
    if isinstance(item, torch.Tensor):
        return tuple(item.shape), item.dtype
    return tuple(map(_item_form, item)) if isinstance(item, list | tuple) else constant(item)


def _timesteps_dtype(path: Path, value: torch.Tensor) -> torch.dtype:
    """Timesteps are whole numbers in some schedulers, float32 in others; an embedding makes them float32."""
    whole = path[0] in TIMESTEPS and not value.is_floating_point()
    return torch.float32 if whole else value.dtype


def collate(rules: CallRules, calls: Sequence[tuple[Call, int]], slots: int) -> dict[str, Any]:
    """One call of `slots` slots from (call, its slots) of one key; spare slots repeat the first one."""
    counts = [count for _call, count in calls]
    joining = _Joining(rules.inputs, counts, slots - sum(counts))
    return {name: joining.join([call[name] for call, _count in calls], (name,)) for name in calls[0][0]}


@dataclass(frozen=True, slots=True)
class _Joining:
    """Joins values of several calls."""

    rules: Mapping[Path, Rule]
    counts: Sequence[int]
    """Slots of each call."""
    spare: int

    def join(self, values: Sequence[Any], path: Path) -> Any:
        first, spare = values[0], self.spare
        match self.rules.get(path):
            case SlotAxis(axis, each):
                dtype = _timesteps_dtype(path, first)
                parts = [value.to(dtype) for value in values]
                return _in_one_order([*parts, *[parts[0].narrow(axis, 0, each)] * spare], axis)
            case SlotList(each):
                items = [item for value in values for item in value]
                return type(first)([*items, *items[:each] * spare])
            case OneTimestep():
                numbers = [
                    value.reshape(-1).float().expand(count)
                    for value, count in zip(values, self.counts, strict=True)
                ]
                return torch.cat([*numbers, numbers[0][:1].expand(spare)])
            case None if isinstance(first, Mapping):
                return _same_mapping(
                    first,
                    {name: self.join([value[name] for value in values], (*path, name)) for name in first},
                )
            case None if isinstance(first, list | tuple):
                below = enumerate(zip(*values, strict=True))
                return type(first)(self.join(parts, (*path, index)) for index, parts in below)
            case _:
                return first


def _in_one_order(parts: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    """The parts along an axis, in the plain order in memory.

    torch.cat takes the order that its parts agree on, such as channels last, and kernels follow it: bytes
    would depend on which images meet.
    """
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return torch.cat(list(parts), axis, out=parts[0].new_empty(shape))


def split(rules: CallRules, output: Any, counts: Sequence[int]) -> list[Any]:
    """The output of each call of a forward, in their order; spare slots are left out.

    Raises UnknownCall for a tensor that no learned output had.
    """
    return _cut(output, (), rules.outputs, counts)


def _cut(value: Any, path: Path, rules: Mapping[Path, Rule], counts: Sequence[int]) -> list[Any]:
    match rules.get(path):
        case SlotAxis(axis, each):
            return _copies(value, axis, [count * each for count in counts])
        case SlotList(each):
            ends = accumulate(count * each for count in counts)
            return [
                type(value)(value[end - count * each : end]) for count, end in zip(counts, ends, strict=True)
            ]
        case None if isinstance(value, Mapping):
            cuts = [_cut(part, (*path, name), rules, counts) for name, part in value.items()]
            below = zip(*cuts, strict=True) if cuts else [() for _ in counts]
            return [_same_mapping(value, dict(zip(value, parts, strict=True))) for parts in below]
        case None if isinstance(value, list | tuple):
            cuts = [_cut(part, (*path, index), rules, counts) for index, part in enumerate(value)]
            below = zip(*cuts, strict=True) if cuts else [() for _ in counts]
            return [type(value)(parts) for parts in below]
        case None if isinstance(value, torch.Tensor):
            raise UnknownCall(f"{written(path)} was not put out when the pipeline was learned")
        case _:
            return [value for _ in counts]


def _copies(tensor: torch.Tensor, axis: int, sizes: Sequence[int]) -> list[torch.Tensor]:
    """Pieces of a tensor along an axis; a GPU makes all of them in one launch.

    Copies: the pipeline may write into its piece, which must not hold the whole forward's memory.
    """
    shapes = [(*tensor.shape[:axis], size, *tensor.shape[axis + 1 :]) for size in sizes]
    pieces = [tensor.new_empty(shape) for shape in shapes]
    torch.split_with_sizes_copy(tensor.narrow(axis, 0, sum(sizes)), sizes, axis, out=pieces)
    return pieces


def _same_mapping(like: Mapping[str, Any], values: dict[str, Any]) -> Mapping[str, Any]:
    """A dict, or a model's output of the same class."""
    return values if type(like) is dict else type(like)(**values)
