"""The soak of a test file: its jobs last for all faults of the file."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from tests.faults.fault import Fault
from tests.faults.field import Field
from tests.faults.soak import Soak

AGAIN = 20
"""Faults drawn by a seed after each kind was there once."""


class Soaks:
    """The soak on a field; a fresh field has a soak of its own."""

    def __init__(self, faults: int, images: int) -> None:
        """`images`: for each fault."""
        self._faults, self._images = faults, images
        self._field: Field | None = None
        self._soak: Soak | None = None

    def on(self, field: Field) -> Soak:
        """Jobs that last for all faults of this file."""
        if self._soak is None or self._field is not field:
            self._field, self._soak = field, Soak(field, self._images * self._faults, self._faults, print)
        return self._soak


def each(faults: Sequence[Fault], usual: Collection[str]) -> list[object]:
    """The faults as parameters of a test: those whose names are not usual are for a soak."""
    return [
        pytest.param(fault, id=fault.name, marks=[] if fault.name in usual else [pytest.mark.soak])
        for fault in faults
    ]


def check_nothing_wrong(soak: Soak) -> None:
    """Nothing was, with the jobs that ended since this was asked last."""
    problems, soak.verdict.problems = soak.verdict.problems, []
    assert problems == []


def check_all_once(soak: Soak) -> None:
    """Ends the soak: all images of all its jobs are there once, and counted once."""
    verdict = soak.end()
    assert verdict.problems == []
    assert verdict.images == verdict.files == verdict.bits == verdict.counted >= soak.images
    assert (verdict.lost, verdict.doubled, verdict.finish_events) == (0, 0, verdict.runs)
