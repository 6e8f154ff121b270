"""Which files the pictures of a line are, and whether they can be used: nothing is decoded or hashed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.errors import InputError, ManifestError
from jobs.file_hash import FileState, file_state
from jobs.location import names_bucket
from jobs.pipelines.pipeline_task import TASK_PICTURES
from jobs.request import PICTURES, settings_in
from jobs.wording import counted, shortened
from producer.bucket_files.fetched_files import near
from producer.bucket_files.object_copies import named
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.manifest.parts import PromptLine
from producer.manifest.problems import MAX_REPORTED
from producer.manifest.written_pictures import ANY_SUFFIX, fields_of, filled

if TYPE_CHECKING:
    from jobs.inputs.input_picture import PictureHeader

NAMES: Final = tuple(name for name in PICTURES if name in settings_in("settings"))
"""The pictures that a manifest may name."""
_SEVERAL: Final = ""
"""In place of a name: several files of one folder have it, in different formats."""


@dataclass(slots=True)
class Noted:
    """What there is to say of the pictures of some lines, which are counted."""

    transparent: int = 0
    animated: int = 0
    fitted: Counter[str] = field(default_factory=Counter)
    """Lines with a picture of another size than is painted, by their `fit`."""

    def add(self, other: Noted) -> None:
        """Takes in what there is to say of further lines."""
        self.transparent += other.transparent
        self.animated += other.animated
        self.fitted += other.fitted

    def told(self, *, swept: bool = False) -> Iterator[str]:
        """A line each kind; `swept`: what is counted are values of the sweep."""

        def those(number: int) -> str:
            return f"{counted(number, 'value')} of `sweep`" if swept else counted(number, "line")

        if self.transparent:
            what = "with a picture that has an alpha channel: it is laid on white, a mask on black"
            yield f"{those(self.transparent)} {what}"
        if self.animated:
            yield f"{those(self.animated)} with a picture of several frames: the first is taken"
        for fit, times in sorted(self.fitted.items()):
            yield f"{those(times)} with a picture of another size than is painted: fit: {fit}"


@dataclass(slots=True)
class PictureFiles:
    """Finds the pictures of lines: those that they name themselves, and those of the manifest's settings."""

    usual: Mapping[str, str]
    """What `settings` names for every line."""
    base: Path
    """What names in rows are relative to: the manifest's folder."""
    height: int | None = None
    width: int | None = None
    """Of a line that has none of its own; None where a sweep or the model decides."""
    fit: str = "crop"
    """The same of `fit`."""
    noted: Noted = field(default_factory=Noted, init=False)
    """What there is to say of the pictures of the lines so far."""
    _folders: dict[str, dict[str, str]] = field(default_factory=dict, init=False)
    """A folder -> its pictures' names without their suffixes -> their names."""

    @classmethod
    def of(cls, manifest: Manifest, defaults: Mapping[str, Any] | None = None) -> PictureFiles:
        """For the lines of a manifest. defaults: what its settings are with those that the model decides."""
        known = {} if defaults is None else defaults
        swept = manifest.sweep.swept()
        given = {name: getattr(manifest.settings, name) for name in NAMES if name not in swept}
        usual = {name: text for name, text in given.items() if text is not None}
        base = Path.cwd() if manifest.folder is None else manifest.folder
        height, width = (
            None if side in swept else known.get(side, getattr(manifest.settings, side))
            for side in ("height", "width")
        )
        fit: str = getattr(manifest.settings, "fit")  # noqa: B009 - a field that a setting gives
        return cls(usual, base, height, width, fit)

    def named(self, line: Line) -> Line:
        """The line with the absolute path of each of its pictures.

        Raises ManifestError for one that cannot be used; it names the setting and what was written.
        """
        own = line.settings
        if not self.usual and (not own or own.keys().isdisjoint(NAMES)):
            return line
        written = {name: own.get(name, self.usual.get(name)) for name in NAMES}
        values = {**line.columns, "id": line.id}
        found = self.found({name: text for name, text in written.items() if text is not None}, values)
        self._note({name: header for name, (_, header) in found.items()}, own)
        return line._replace(settings={**own, **{name: path for name, (path, _) in found.items()}})

    def found(
        self, written: Mapping[str, str], values: Mapping[str, Any]
    ) -> dict[str, tuple[str, PictureHeader]]:
        """The absolute path and the header of each picture that is written. Raises as `named` does.

        values: what {id} and {column} in names stand for.
        """
        return {name: self._file(name, text, values) for name, text in written.items()}

    def _note(self, headers: Mapping[str, PictureHeader], own: Mapping[str, Any]) -> None:
        """Takes in what there is to say of a line's pictures, by their settings."""
        noted = self.noted
        noted.transparent += any(header.transparent for header in headers.values())
        noted.animated += any(header.animated for header in headers.values())
        height, width = own.get("height", self.height), own.get("width", self.width)
        if height is not None and width is not None:
            fitted = [headers[name] for name in TASK_PICTURES if name in headers]
            if any((header.height, header.width) != (height, width) for header in fitted):
                noted.fitted[own.get("fit", self.fit)] += 1

    def _file(self, name: str, text: str, values: Mapping[str, Any]) -> tuple[str, PictureHeader]:
        try:
            called = filled(text, values)
            if names_bucket(called):
                return _in_bucket(called)
            path = self.base / Path(called).expanduser()
            if path.name.endswith(ANY_SUFFIX):
                path = self._of_any_suffix(path)
            return str(path), _header(str(path))
        except (ManifestError, InputError) as error:
            raise ManifestError(f"{name} = {shortened(text)}: {error}") from None
        except RuntimeError:  # of Path.expanduser
            raise ManifestError(f"{name} = {shortened(text)}: there is no such user: write it out") from None

    def _of_any_suffix(self, path: Path) -> Path:
        """The one picture of this name, in any format."""
        folder, stem = str(path.parent), path.name.removesuffix(ANY_SUFFIX)
        if folder not in self._folders:
            self._folders[folder] = _pictures_in(path.parent)
        called = self._folders[folder].get(stem)
        if called is None:
            raise ManifestError(f"{shortened(folder)} has no picture called {shortened(stem)}: put one there")
        if called == _SEVERAL:
            raise ManifestError(
                f"{shortened(folder)} has several pictures called {shortened(stem)}: name one with its suffix"
            )
        return path.parent / called


def _in_bucket(name: str) -> tuple[str, PictureHeader]:
    """The copy of a picture in a bucket, and its header. Raises InputError."""
    if name.endswith(ANY_SUFFIX):
        raise InputError("a picture in a bucket needs its suffix: write it out, as in {id}.png")
    copy = str(near(name))
    return copy, _header(copy)


def _header(path: str) -> PictureHeader:
    """What the file's header says. Raises InputError."""
    try:
        state = file_state(Path(path))
    except (OSError, ValueError):
        state = None  # what is wrong is said where it is read
    return _header_of(path, state)


@lru_cache(10_000)
def _header_of(path: str, _state: FileState | None) -> PictureHeader:
    """What the header of a file in this state says."""
    # Pillow, which few manifests need.
    from jobs.inputs.input_picture import read_header

    try:
        return read_header(Path(path))
    except InputError as error:
        raise InputError(f"{named(path)}: {error}") from None


def check_pictures(manifest: Manifest) -> None:
    """Raises ManifestError that names every place, up to 20, where the manifest itself names a picture that
    cannot be used. Pictures of prompt files' rows are checked where those are read."""
    files, wrong = PictureFiles.of(manifest), list[str]()

    def try_one(line: Line, *path: str | int) -> None:
        try:
            files.named(line)
        except ManifestError as error:
            called = str(error).partition(" ")[0]
            place = manifest.place(*path, called)
            wrong.append(f"{place.removesuffix(called)}{error}")

    for name, texts in manifest.sweep.swept().items():
        for index, text in enumerate(texts if name in NAMES else ()):
            if fields_of(text):
                place = manifest.place("sweep", name, index)
                wrong.append(
                    f"{place} = {shortened(text)}: a swept name has no line of its own: write it out"
                )
            else:
                try_one(_bare({name: text}), "sweep")
    if not manifest.prompts and not any(map(fields_of, files.usual.values())):
        try_one(_bare({}), "settings")
    for index, written in enumerate(manifest.prompts):
        if isinstance(written, PromptLine):
            own = {name: text for name in NAMES if (text := getattr(written, name)) is not None}
            columns = {} if written.columns is None else written.columns
            line = _bare(own)._replace(id=written.id, columns=columns)
            try_one(line, *(("prompts", index) if own else ("settings",)))
        elif files.usual:
            try_one(_bare({}), "settings")
        if len(wrong) >= MAX_REPORTED:
            break
    if wrong:
        raise ManifestError("\n".join(dict.fromkeys(wrong)))


def _bare(settings: Mapping[str, Any]) -> Line:
    """A line that says nothing but these settings."""
    return Line("", settings, 1, None, None, {}, None)


def _pictures_in(folder: Path) -> dict[str, str]:
    from PIL import Image

    known, found = Image.registered_extensions(), dict[str, str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - a folder may have 100,000
                if suffix.lower() in known:
                    found[stem] = _SEVERAL if stem in found else entry.name
    except OSError as error:
        raise ManifestError(f"{folder}: cannot be read: {error.strerror}") from None
    return found
