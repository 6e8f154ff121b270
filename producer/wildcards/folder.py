"""A folder of wildcards: which there are, and what each may stand for.

As dynamicprompts has them: NAME.txt has an option a line, blank lines and those that begin with # aside;
.yaml and .json have lists by name, nested as deeply as one likes (`colors: {warm: [red, 2::orange]}` are
`__colors/warm__`). `*`, `?` and `[…]` in a name match several wildcards; a name that is nowhere is looked for
in all subfolders.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from jobs.errors import ManifestError
from jobs.plain_file import TooLarge, read_plain
from jobs.wording import printable

MOST_BYTES: Final = 16 << 20
"""Of one file."""
MOST_OPTIONS: Final = 100_000
"""Of one wildcard."""
_MOST_FILES: Final = 100_000
_MOST_LISTS: Final = 10_000
"""Of one file."""
_WEIGHT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)::(.*)", re.DOTALL)
_MOST_WEIGHT: Final = 1e18
_SHOWN: Final = 5


class Listed(NamedTuple):
    """One option of a wildcard."""

    text: str
    weight: float
    place: str
    """`FILE:LINE`, or the file and the name in it."""


class WildcardFolder:
    """The wildcards of one folder; its files are read when they are first asked for, and once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._texts: dict[str, Path] | None = None
        self._lists: dict[str, list[Listed]] = {}
        self.files: dict[str, str] = {}
        """The SHA-256 of every file that gave an option, by its path."""
        self._unused: dict[str, str] = {}

    def options(self, name: str) -> list[Listed]:
        """What `__name__` may stand for: each text once, files by name and lines in order.

        Raises ManifestError for a name that no file has, with near ones, and for files that cannot be read.
        """
        wanted = re.sub(r"[\\/]+", "/", name.strip()).strip("/")
        matching = self._matching(wanted)
        if not matching:
            raise ManifestError(f"__{name}__: {self._missing(wanted)}")
        found: dict[str, Listed] = {}
        for one in matching:
            for option in self._read(one):
                found.setdefault(option.text, option)
        if not found:
            raise ManifestError(
                f"__{name}__: {self._index()[matching[0]]}: holds no option: write one a line"
            )
        if len(found) > MOST_OPTIONS:
            raise ManifestError(f"__{name}__: has more than {MOST_OPTIONS:,} options: name fewer files")
        return list(found.values())

    def _matching(self, wanted: str) -> list[str]:
        names = self._index()
        if wanted in names:
            return [wanted]
        pattern = any(mark in wanted for mark in "*?[")
        found = [name for name in names if pattern and fnmatchcase(name, wanted)]
        return sorted(found or (name for name in names if fnmatchcase(name, f"*/{wanted}")))

    def _missing(self, wanted: str) -> str:
        if not self._path.is_dir():
            for near in self._near_folders():
                if WildcardFolder(near)._matching(wanted):
                    return f"there is no folder {self._path}: write `wildcards: {near.name}`"
            return f"there is no folder {self._path}: make it, or name another one by `wildcards`"
        names = self._index()
        close = difflib.get_close_matches(wanted, list(names)[:10_000], _SHOWN)
        remedy = (
            f"did you mean {' or '.join(f'__{one}__' for one in close)}?"
            if close
            else f"it has {', '.join(f'__{one}__' for one in sorted(names)[:_SHOWN]) or 'none'}"
        )
        return f"no such wildcard in {self._path}: {remedy}"

    def _near_folders(self) -> Iterator[Path]:
        try:
            near = sorted(self._path.parent.iterdir())
        except OSError:
            return
        yield from (one for one in near[:1000] if one.is_dir() and not one.name.startswith("."))

    def _index(self) -> dict[str, Path]:
        """Every wildcard's name and its file; those of .yaml and .json are read with it."""
        if self._texts is None:
            self._texts = {}
            for file in self._walk():
                inner = file.relative_to(self._path).with_suffix("").as_posix()
                around = inner.rpartition("/")[0]
                names = [inner] if file.suffix == ".txt" else self._read_lists(file, around)
                for name in names:
                    other = self._texts.setdefault(name, file)
                    if other != file:
                        raise ManifestError(f"__{name}__: {other} and {file} both have it: rename one")
        return self._texts

    def _walk(self) -> Iterator[Path]:
        seen, files = set[str](), 0
        for folder, folders, names in os.walk(self._path, followlinks=True):
            # A link may lead back to where the walk came from.
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            for name in sorted(names):
                files += 1
                if files > _MOST_FILES:
                    raise ManifestError(
                        f"{self._path}: holds more than {_MOST_FILES:,} files: name a smaller one"
                    )
                if name.endswith((".txt", ".yaml", ".json")) and not name.startswith("."):
                    yield Path(folder, name)

    def _read(self, name: str) -> list[Listed]:
        file = self._index()[name]
        if file.suffix != ".txt":
            self.files[str(file)] = self._unused[str(file)]
            return self._lists[name]
        if name not in self._lists:
            text, sha256 = _contents(file)
            self.files[str(file)] = sha256
            options = []
            for number, line in enumerate(text.split("\n"), 1):
                if (stripped := line.strip()) and not stripped.startswith("#"):
                    options.append(_option(stripped, f"{file}:{number}"))
            self._lists[name] = options
        return self._lists[name]

    def _read_lists(self, file: Path, around: str) -> list[str]:
        """Reads the lists of a .yaml or .json; returns the names of their wildcards."""
        text, sha256 = _contents(file)
        self._unused[str(file)] = sha256
        try:
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            read = json.loads(text) if file.suffix == ".json" else yaml.load(text, loader)
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            what = printable(" ".join(str(error).split()))
            raise ManifestError(f"{file}: cannot be read as {file.suffix[1:]}: {what}") from None
        if isinstance(read, list):
            read = {file.stem: read}
        if read is None:
            return []
        if not isinstance(read, dict):
            raise ManifestError(f"{file}: must be a mapping of names to lists, or a list")
        names: list[str] = []
        for name, options in _lists(read, (around,) if around else (), file, 0):
            if len(names) == _MOST_LISTS:  # aliases of YAML make as many of a few lines as one likes
                raise ManifestError(f"{file}: has more than {_MOST_LISTS:,} lists: split it, or write fewer")
            self._lists[name] = options
            names.append(name)
        return names


def _lists(
    read: dict[Any, Any], around: tuple[str, ...], file: Path, depth: int
) -> Iterator[tuple[str, list[Listed]]]:
    for key, value in read.items():
        path = (*around, str(key))
        name = "/".join(path)
        place = f"{file}: {name}"
        if isinstance(value, dict):
            if depth == 20:
                raise ManifestError(f"{place}: is nested deeper than 20: flatten it")
            yield from _lists(value, path, file, depth + 1)
        elif isinstance(value, (str, list)):
            items = [value] if isinstance(value, str) else value
            yield name, [_item(item, f"{place}[{number}]") for number, item in enumerate(items) if item != ""]
        elif value is not None:
            raise ManifestError(f"{place}: must be a list of texts")


def _item(item: object, place: str) -> Listed:
    if isinstance(item, str):
        return _option(item, place)
    if isinstance(item, dict) and set(item) <= {"text", "content", "weight"}:
        text, weight = item.get("text", item.get("content")), item.get("weight", 1)
        if isinstance(text, str) and type(weight) in (int, float) and 0 <= weight <= _MOST_WEIGHT:
            return Listed(text, float(weight), place)
    if type(item) in (int, float):
        return Listed(str(item), 1.0, place)
    raise ManifestError(f"{place}: must be a text, or {{text: …, weight: 2}}")


def _option(text: str, place: str) -> Listed:
    given = _WEIGHT.fullmatch(text)
    return Listed(text, 1.0, place) if given is None else Listed(given[2].strip(), float(given[1]), place)


def _contents(file: Path) -> tuple[str, str]:
    """The text of a file and its SHA-256."""
    try:
        data = read_plain(file, MOST_BYTES)
    except TooLarge:
        raise ManifestError(
            f"{file}: is larger than {MOST_BYTES >> 20} MiB: no wildcard has so many options"
        ) from None
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"{file}:{line}: is not UTF-8 (byte 0x{data[error.start]:02x}): save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise ManifestError(
            f"{file}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: holds the character NUL"
        )
    return text, hashlib.sha256(data).hexdigest()
