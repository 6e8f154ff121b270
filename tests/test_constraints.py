"""constraints.txt pins all that imagemill and its extras need: a build of today can be made tomorrow."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PINNED = {
    canonicalize_name(name): pinned
    for name, pinned in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
}


_NOT_HERE = {"torchvision", "async-timeout"}
"""An extra that `make check` leaves out; and what Python before 3.11.3 needs, such as Debian 12's."""


def closure(needs: Iterable[str], python: str) -> set[str]:
    """The names of all packages that this Python needs, directly or not, as those that are installed say."""
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    found: set[tuple[str, frozenset[str]]] = set()
    left = [(Requirement(need), frozenset({""})) for need in needs]
    while left:
        need, extras_of_asker = left.pop()
        if need.marker is not None and not any(
            need.marker.evaluate(environment | {"extra": extra}) for extra in extras_of_asker
        ):
            continue
        key = (canonicalize_name(need.name), frozenset(need.extras) | {""})
        if key in found:
            continue
        found.add(key)
        try:
            left += [(Requirement(further), key[1]) for further in requires(need.name) or ()]
        except PackageNotFoundError:
            assert need.name in _NOT_HERE, (
                "neither an extra that `make check` leaves out nor for another Python"
            )
    return {name for name, _ in found}


@pytest.mark.parametrize("python", ["3.11.0", "3.11.9", "3.12.0", "3.13.0", "3.14.0"])
def test_every_package_that_is_needed_directly_or_not_is_pinned(python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    names = closure(needs, python)
    assert len(names) > 100
    assert sorted(names - set(PINNED)) == []


def test_what_is_installed_here_is_what_is_pinned() -> None:
    def installed(name: str) -> str | None:
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            return None

    here = {name: installed(name) for name in PINNED}
    assert {name: found for name, found in here.items() if found not in (None, PINNED[name])} == {}
