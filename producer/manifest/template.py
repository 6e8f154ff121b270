"""Prompts with {variables}: all their combinations, or a few drawn by a seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a template, and which key of the prompt it is in."""

    at: tuple[str, ...]
    what: str


def template_trouble(
    prompt: str, variables: Mapping[str, Sequence[str]], sample: int | None
) -> Trouble | None:
    """Why the prompt and its variables do not fit each other, with the remedy; None when they do."""
    used = set()
    for piece in _PIECE.finditer(prompt):
        if piece[0] in ("{", "}"):
            what = f"has a {piece[0]} alone: write {piece[0] * 2} for the brace itself"
            return Trouble(("prompt",), what)
        if piece[1] is not None:
            if piece[1] not in variables:
                what = (
                    f"names {piece[0]}, which is no variable: add it to `variables`, or write {{{piece[0]}}}"
                )
                return Trouble(("prompt",), what)
            used.add(piece[1])
    unused = next((name for name in variables if name not in used), None)
    if unused is not None:
        return Trouble(("variables", unused), f"is not in the prompt: write {{{unused}}} there, or remove it")
    count = prod(len(values) for values in variables.values())
    if sample is not None and sample > count:
        return Trouble(("sample",), f"there are only {count} combinations: give at most that")
    return None


def rendered(
    prompt: str, variables: Mapping[str, Sequence[str]], sample: int | None, sample_seed: int
) -> Iterator[str]:
    """The prompts that a template stands for; the variable that comes last in it changes fastest."""
    pieces = _parsed(prompt)
    names = list(dict.fromkeys(text for kind, text in pieces if kind == "name"))
    count = prod(len(values) for values in variables.values())
    for number in range(count) if sample is None else _drawn(count, sample, sample_seed):
        chosen, rest = {}, number
        for name in reversed(names):
            rest, at = divmod(rest, len(variables[name]))
            chosen[name] = variables[name][at]
        yield "".join(text if kind == "text" else chosen[text] for kind, text in pieces)


def _parsed(prompt: str) -> list[tuple[Literal["text", "name"], str]]:
    pieces: list[tuple[Literal["text", "name"], str]] = []
    end = 0
    for piece in _PIECE.finditer(prompt):
        pieces.append(("text", prompt[end : piece.start()]))
        pieces.append(("text", piece[0][0]) if piece[1] is None else ("name", piece[1]))
        end = piece.end()
    pieces.append(("text", prompt[end:]))
    return pieces


def _drawn(count: int, sample: int, seed: int) -> list[int]:
    """`sample` different numbers below `count`, in order; the same ones on every machine.

    Floyd's algorithm (Bentley, "A sample of brilliance", 1987): memory and time depend on `sample` alone.
    """
    chosen: set[int] = set()
    for last in range(count - sample, count):
        lot = hashlib.sha256(f"{seed} {last}".encode()).digest()
        number = int.from_bytes(lot, "big") % (last + 1)
        chosen.add(last if number in chosen else number)
    return sorted(chosen)
