"""The LoRAs of a folder and of those below it, by the names that prompts and rows call them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import ManifestError
from jobs.model_files.safetensors_header import SUFFIX
from jobs.wording import shortened, some

_SHOWN = 8
_LIKE = 0.5


@dataclass(slots=True)
class LoraFolder:
    """Finds files by name; the folder is looked through once."""

    path: Path
    """Absolute."""
    _names: Mapping[str, tuple[Path, ...]] | None = field(default=None, init=False)

    @property
    def searched(self) -> bool:
        """Whether a file was looked for."""
        return self._names is not None

    def find(self, name: str) -> Path:
        """The one file of this name: its own without the suffix, or with folders before it, `styles/ink`.

        Raises ManifestError that says which there are.
        """
        if self._names is None:
            self._names = _names(self.path)
        found = self._names.get(name, ())
        if len(found) == 1:
            return found[0]
        if found:
            longer = [one.relative_to(self.path).with_suffix("").as_posix() for one in found]
            remedy = "rename one" if name in longer else f"write {' or '.join(longer[:_SHOWN])}"
            raise ManifestError(
                f"{shortened(name)}: {len(found)} files in {self.path} have that name "
                f"({some(longer, _SHOWN)}): {remedy}"
            )
        raise ManifestError(f"{shortened(name)}: {self._missing(name)}")

    def _missing(self, name: str) -> str:
        names = {} if self._names is None else self._names
        if not names:
            return f"there is no {SUFFIX} file in {self.path}: put it there, or correct `lora_folder`"
        folded = {one.casefold(): one for one in names}
        close = difflib.get_close_matches(name.casefold(), folded, 3, _LIKE)
        if close:
            like = " or ".join(shortened(folded[one]) for one in close)
            return f"there is no such file in {self.path}: did you mean {like}?"
        there = some([shortened(one) for one in sorted(names) if "/" not in one], _SHOWN)
        return f"there is no such file in {self.path} (there are {there})"


def _names(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Each file's own name, and those with folders before it -> the files of that name."""
    found: dict[str, tuple[Path, ...]] = {}
    for file in sorted(_files(folder)):
        below = file.relative_to(folder).with_suffix("")
        for depth in range(len(below.parts)):
            name = Path(*below.parts[depth:]).as_posix()
            found[name] = (*found.get(name, ()), file)
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Every LoRA in a folder and below; a folder that is linked into itself is looked into once."""
    if not folder.is_dir():
        raise ManifestError(f"lora_folder = {folder}: there is no such folder: correct it")
    seen = set[str]()
    for here, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        yield from (Path(here) / file for file in files if file.endswith(SUFFIX))
