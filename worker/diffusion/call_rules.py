"""How calls of one denoiser share a forward: what belongs to a slot, what all slots share, how calls are
joined and an output is split again. Pure functions over calls; no pipeline is known here.

A call is the denoiser's arguments by name: tensors, numbers, texts, and lists, tuples and dicts of them.
Which of its tensors hold something for each slot follows from no shape (a guided image has two slots, and a
rotary table of two tensors looks like it), so it is learned: the same call is made for one image and for two,
and what grew belongs to the slots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from worker.diffusion.per_tensor import PerTensor

Call = Mapping[str, Any]
"""A denoiser's arguments by name."""
Path = tuple[str | int, ...]
"""Where a value stands in a call or an output: argument, then keys and indices."""

_TIMESTEPS = frozenset({"timestep", "timesteps", "t"})
_PLAIN = frozenset({type(None), str, bool, int, float})
"""Types of constants that are compared by their values; others are by what `repr` says of them."""


class Unlearnable(Exception):
    """What the slots of a call are cannot be said."""


class UnknownCall(Exception):
    """A call holds something that no call did from which the rules were learned."""


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


@dataclass(frozen=True, slots=True)
class Keyed:
    """What one call has in common with those it may share a forward with, and its slots."""

    key: Hashable
    slots: int


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
                raise Unlearnable(f"{_written(path)} has {rule.each} entries for {slots} slots")
            each = rule.each // slots
            found: Rule = SlotAxis(rule.axis, each) if isinstance(rule, SlotAxis) else SlotList(each)
        else:
            found = rule
        if known.setdefault(path, found) != found:
            raise Unlearnable(f"{_written(path)} belongs to the slots in some calls and not in others")


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
        raise Unlearnable(f"{_written(path)} has {len(one)} items for one image, {len(two)} for two")
    if isinstance(one, torch.Tensor | Mapping | list | tuple) or type(one) is not type(two):
        raise Unlearnable(f"{_written(path)} is another kind of thing for two images")
    return {}


def _of_tensor(one: torch.Tensor, two: torch.Tensor, path: Path) -> Rule:
    shapes = f"{tuple(one.shape)} for one image, {tuple(two.shape)} for two"
    axes = [axis for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=False)) if a != b]
    if one.ndim != two.ndim or len(axes) > 1:
        raise Unlearnable(f"{_written(path)} is {shapes}")
    if axes:
        [axis] = axes
        if two.shape[axis] != 2 * one.shape[axis]:
            raise Unlearnable(f"{_written(path)} is {shapes}")
        return SlotAxis(axis, one.shape[axis])
    # A tensor of one number may be a table as well; of the arguments so called it is known.
    named = path[:1] and path[0] in _TIMESTEPS
    return OneTimestep() if one.ndim == 0 or (one.numel() == 1 and named) else Shared()


def _joined(parts: Iterator[dict[Path, Rule]]) -> dict[Path, Rule]:
    return {path: rule for part in parts for path, rule in part.items()}


# Keys.


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


def keyed(rules: CallRules, call: Call, digests: Digests, any_form: frozenset[str] = frozenset()) -> Keyed:
    """The key of a call and its slots. any_form: arguments whose items may differ in form in one forward.

    Raises UnknownCall for a tensor or a list that no learned call had, and for arguments of different slots.
    """
    # Of what a call holds alone, in its order: with the names and lengths below, that says where each stands.
    parts: list[Hashable] = []
    counts: dict[Path, int] = {}
    numbers: dict[Path, int] = {}
    rule_of = rules.inputs.get

    # Every call of every step comes here: what is most frequent is asked first.
    def look(value: Any, path: Path) -> None:
        match rule_of(path):
            case None if type(value) in _PLAIN:
                parts.append((type(value), value))
            case SlotAxis() | SlotList() as rule:
                counts[path] = _slots_of(rule, value, path)
                parts.append(None if path[0] in any_form else _form(rule, value, path))
            case OneTimestep():
                numbers[path] = value.numel()
                parts.append(None)
            case Shared():
                parts.append(digests.of(value))
            case None if isinstance(value, torch.Tensor):
                raise UnknownCall(f"{_written(path)} was not given when the pipeline was learned")
            case None if isinstance(value, list | tuple):
                parts.append(len(value))
                for index, part in enumerate(value):
                    look(part, (*path, index))
            case None if isinstance(value, Mapping):
                parts.append(tuple(value))
                for name, part in value.items():
                    look(part, (*path, name))
            case None:
                parts.append(_constant(value))

    look(call, ())
    if len(set(counts.values())) != 1:
        each = ", ".join(f"{_written(path)} {count}" for path, count in counts.items())
        raise UnknownCall(f"the arguments are for different numbers of slots: {each}")
    slots = next(iter(counts.values()))
    for path, count in numbers.items():
        if count not in (1, slots):  # some repeat it for their slots
            raise UnknownCall(f"{_written(path)} has {count} numbers for {slots} slots")
    return Keyed(tuple(parts), slots)


def content_of(call: Call, digests: Digests) -> Hashable:
    """What a whole call is recognised by; tensors by their contents."""
    parts: list[Hashable] = []

    def look(value: Any, path: Path) -> None:
        match value:
            case torch.Tensor():
                parts.append((path, digests.of(value)))
            case Mapping():
                for name, part in value.items():
                    look(part, (*path, name))
            case list() | tuple():
                for index, part in enumerate(value):
                    look(part, (*path, index))
            case _:
                parts.append((path, _constant(value)))

    look(call, ())
    return tuple(parts)


def _slots_of(rule: SlotAxis | SlotList, value: Any, path: Path) -> int:
    fits = isinstance(value, torch.Tensor if isinstance(rule, SlotAxis) else list | tuple)
    entries = 0
    if fits:
        entries = value.size(rule.axis) if isinstance(rule, SlotAxis) else len(value)
    if not fits or entries % rule.each or entries == 0:
        raise UnknownCall(f"{_written(path)} is not as it was when the pipeline was learned")
    return entries // rule.each


def _form(rule: SlotAxis | SlotList, value: Any, path: Path) -> tuple[Hashable, ...]:
    """What slots must have in common to stand in one tensor, or one list."""
    if isinstance(rule, SlotAxis):
        shape = list(value.shape)
        del shape[rule.axis]
        return (*shape, _timesteps_dtype(path, value))
    # A model may pad its items to the longest: those that meet are of the same forms.
    forms = tuple(
        (tuple(item.shape), item.dtype) if isinstance(item, torch.Tensor) else _constant(item)
        for item in value
    )
    return forms[: rule.each] if len(set(forms)) == 1 else forms


def _constant(value: Any) -> Hashable:
    """Equal for equal constants: 1, 1.0 and True are told apart."""
    return (type(value), value) if type(value) in _PLAIN else repr(value)


def _timesteps_dtype(path: Path, value: torch.Tensor) -> torch.dtype:
    """Timesteps are whole numbers in some schedulers, float32 in others; an embedding makes them float32."""
    whole = path[0] in _TIMESTEPS and not value.is_floating_point()
    return torch.float32 if whole else value.dtype


# Joining and splitting.


def collate(rules: CallRules, calls: Sequence[tuple[Call, int]], slots: int) -> dict[str, Any]:
    """One call of `slots` slots from (call, its slots) of one key; spare slots repeat the first one."""
    spare = slots - sum(count for _call, count in calls)

    def join(values: Sequence[Any], path: Path) -> Any:
        first = values[0]
        match rules.inputs.get(path):
            case SlotAxis(axis, each):
                dtype = _timesteps_dtype(path, first)
                parts = [value.to(dtype) for value in values]
                return torch.cat([*parts, *[parts[0].narrow(axis, 0, each)] * spare], axis)
            case SlotList(each):
                items = [item for value in values for item in value]
                return type(first)([*items, *items[:each] * spare])
            case OneTimestep():
                counts = [count for _call, count in calls]
                numbers = [
                    value.reshape(-1).float().expand(count)
                    for value, count in zip(values, counts, strict=True)
                ]
                return torch.cat([*numbers, numbers[0][:1].expand(spare)])
            case None if isinstance(first, Mapping):
                return _same_mapping(
                    first, {name: join([value[name] for value in values], (*path, name)) for name in first}
                )
            case None if isinstance(first, list | tuple):
                below = enumerate(zip(*values, strict=True))
                return type(first)(join(parts, (*path, index)) for index, parts in below)
            case _:
                return first

    return {name: join([call[name] for call, _count in calls], (name,)) for name in calls[0][0]}


def split(rules: CallRules, output: Any, counts: Sequence[int]) -> list[Any]:
    """The output of each call of a forward, in their order; spare slots are left out.

    Raises UnknownCall for a tensor that no learned output had.
    """

    def cut(value: Any, path: Path) -> list[Any]:
        match rules.outputs.get(path):
            case SlotAxis(axis, each):
                return _copies(value, axis, [count * each for count in counts])
            case SlotList(each):
                ends = accumulate(count * each for count in counts)
                return [
                    type(value)(value[end - count * each : end])
                    for count, end in zip(counts, ends, strict=True)
                ]
            case None if isinstance(value, Mapping):
                cuts = [cut(part, (*path, name)) for name, part in value.items()]
                below = zip(*cuts, strict=True) if cuts else [() for _ in counts]
                return [_same_mapping(value, dict(zip(value, parts, strict=True))) for parts in below]
            case None if isinstance(value, list | tuple):
                cuts = [cut(part, (*path, index)) for index, part in enumerate(value)]
                below = zip(*cuts, strict=True) if cuts else [() for _ in counts]
                return [type(value)(parts) for parts in below]
            case None if isinstance(value, torch.Tensor):
                unknown = f"{_written(path)} was not put out when the pipeline was learned"
                raise UnknownCall(unknown)
            case _:
                return [value for _ in counts]

    return cut(output, ())


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


def _written(path: Path) -> str:
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
