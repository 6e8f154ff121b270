"""What a template stands for, with its wildcards looked up: how many texts, how long, and all of them.

Numbers are exact up to MOST and saturate there, so a template whose wildcards multiply a thousand times over
is counted as fast as any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from math import perm
from typing import Final

MOST: Final = 10**24
"""Numbers are exact below."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large what a template stands for is."""

    combinations: int
    """Ways to choose; two of them may give the same text."""
    longest: int
    """Characters of the longest text."""
    places: int
    """The most places at which one draw chooses."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Text that is the same in all of them."""

    text: str

    @property
    def size(self) -> Size:
        return Size(1, len(self.text), 0)


@dataclass(frozen=True, slots=True)
class Row:
    """One after the other."""

    parts: tuple[Choices, ...]
    size: Size


@dataclass(frozen=True, slots=True)
class Choice:
    """`least` to `most` different options, in any order."""

    options: tuple[Choices, ...]
    names: tuple[str, ...]
    """What tells each option from the others, in this template and in others; no two are equal."""
    weights: tuple[float, ...]
    """Above 0."""
    least: int
    most: int
    separator: str
    size: Size


Choices = Fixed | Row | Choice
Weighed = tuple[str, float, Choices]
"""What tells an option from the others, its weight above 0, and what it stands for."""


def row_of(parts: Sequence[Choices]) -> Choices:
    """The parts one after the other; neighbouring fixed texts become one."""
    joined: list[Choices] = []
    for part in parts:
        for one in part.parts if isinstance(part, Row) else (part,):
            last = joined[-1] if joined else None
            if isinstance(one, Fixed) and isinstance(last, Fixed):
                joined[-1] = Fixed(last.text + one.text)
            else:
                joined.append(one)
    if len(joined) == 1:
        return joined[0]
    combinations = 1
    for one in joined:
        combinations = min(combinations * one.size.combinations, MOST)
    longest = min(sum(one.size.longest for one in joined), MOST)
    places = min(sum(one.size.places for one in joined), MOST)
    return Row(tuple(joined), Size(combinations, longest, places))


def choice_of(options: Sequence[Weighed], least: int, most: int, separator: str) -> Choice:
    """A choice of `least` to `most` of `options`."""
    names, weights, choices = zip(*options, strict=True)
    sizes = [one.size for one in choices]
    longest = sum(sorted(size.longest for size in sizes)[len(sizes) - most :]) + len(separator) * max(
        0, most - 1
    )
    places = sum(sorted(size.places for size in sizes)[len(sizes) - most :])
    combinations = _selections([size.combinations for size in sizes], least, most)
    size = Size(combinations, min(longest, MOST), min(1 + places, MOST))
    return Choice(choices, names, weights, least, most, separator, size)


def _selections(counts: Sequence[int], least: int, most: int) -> int:
    """Ways to take `least` to `most` different options, in any order, of `counts` texts each.

    For k of them: k! times the k-th elementary symmetric polynomial of the counts.
    """
    if all(count == 1 for count in counts):
        return min(sum(perm(len(counts), taken) for taken in range(least, most + 1)), MOST)
    if most == 1:
        return min(sum(counts) * (most >= 1) + (least == 0), MOST)
    ways = [1] + [0] * most
    for count in counts:
        for taken in range(most, 0, -1):
            ways[taken] = min(ways[taken] + ways[taken - 1] * count, MOST)
    return min(sum(ways[taken] * perm(taken) for taken in range(least, most + 1)), MOST)


def texts(choices: Choices) -> Iterator[str]:
    """Every text, each way to choose once; the place that comes last changes fastest.

    Holds the texts of every part: for `size.combinations` up to some 100,000.
    """
    match choices:
        case Fixed(text):
            yield text
        case Row(parts):
            yield from map("".join, product(*(list(texts(part)) for part in parts)))
        case Choice(options, least=least, most=most, separator=separator):
            every = [list(texts(option)) for option in options]
            for taken in range(least, most + 1):
                for chosen in permutations(every, taken):
                    yield from map(separator.join, product(*chosen))
