"""The families as parameters of tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from _pytest.mark.structures import ParameterSet

from tests.tiny.families import CORE


def family_params(names: Iterable[str]) -> Iterator[ParameterSet]:
    """A parameter for each family of these names, marked `families` where only `make families` tries it."""
    for name in names:
        yield pytest.param(name, marks=() if name in CORE else pytest.mark.families)
