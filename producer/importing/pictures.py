"""The pictures that a command line names: files, and all pictures in folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from jobs.output.output import PREVIEW, REPORT

_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_DIGITS = re.compile(r"([0-9]{1,18})")


def pictures_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files as they are given; of a folder all pictures below it, 2.png before 10.png. Hidden folders and
    an output's contact sheet are left out."""
    for path in paths:
        if path.is_dir():
            yield from _below(path)
        else:
            yield path


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_natural)
        sheet = {PREVIEW} if REPORT in names else set()
        for name in sorted(names, key=_natural):
            if Path(name).suffix.lower() in _SUFFIXES and not name.startswith(".") and name not in sheet:
                yield Path(where) / name


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key by which numbers in names are ordered as numbers."""
    return [(0, int(one), "") if one.isdecimal() else (1, 0, one) for one in _DIGITS.split(name)]
