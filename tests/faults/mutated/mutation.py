"""A check taken out of the code, and the test that is red without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """A check taken out: `old`, which stands once in `file`, becomes `new`, and `test` fails."""

    check: str
    taken_out_by: str
    file: str
    old: str
    new: str
    test: str
