"""A manifest as it was submitted: what an output keeps of every submission, by the job's id.

    OUT/.imagemill/jobs/sunsets-1.json    {"name": "sunsets", …, "narrowed": "--limit 10", "files": {…}}

The keys of the manifest and two more, so that a person may compare the file with a manifest. Files have the
names of `producer.manifest.path_names`; early versions kept their absolute paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from jobs.errors import ManifestError
from jobs.strict_json import strict_json
from jobs.wording import shown
from producer.manifest.manifest import Manifest
from producer.manifest.path_names import FOLDER, PathNames, with_paths

INPUTS: Final = "pictures of lines"
"""Among `files` the pictures and adapters that lines name, all as one: there may be 100,000."""
_NARROWED = re.compile("(?:(--limit|--sample) ([0-9]{1,18}))?")


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was submitted."""

    name: str
    """A key of the manifest, "narrowed", or the path of a file."""
    how: str
    """"changed", "came", "is gone", or why it cannot be read."""
    is_file: bool = False

    def __str__(self) -> str:
        return f"{shown(self.name)} {self.how}"


@dataclass(frozen=True, slots=True)
class SubmittedManifest:
    """What one submission asked for."""

    manifest: Manifest
    """With the revision that its model had then."""
    narrowed: str = ""
    """The option that narrowed it, "--limit 10"; empty when none did."""
    files: Mapping[str, str] | None = None
    """Each file that was read for it -> the SHA-256 of its contents (of initial latents, as
    `jobs.inputs.latents` computes it). None when they were not kept: early versions did not keep them."""

    pipeline: str = ""
    """The class of its model, where lines name pictures: which strength one is painted over with, where none
    is given, depends on it. Empty for others."""

    @property
    def limit(self) -> int | None:
        """N of `--limit N`."""
        return self._count_of("--limit")

    @property
    def sample(self) -> int | None:
        """N of `--sample N`."""
        return self._count_of("--sample")

    def _count_of(self, option: str) -> int | None:
        given, _, count = self.narrowed.partition(" ")
        return int(count) if given == option else None

    def changes(self, now: SubmittedManifest, folder: Path | None = None) -> list[Change]:
        """What differs in `now`: the manifest's keys, the option that narrows it, then the files if `now` has
        them.

        `folder`: the manifest's own now; then files are compared by the names that an output gives them.
        """
        before, _ = _named(self.to_json(), folder)
        after, known = _named(now.to_json(), folder)
        for one in (before, after):
            one.pop("pipeline", None)  # it follows from the model
        kept, files = before.pop("files", {}), after.pop("files", None)
        changed = [] if files is None else _differences(kept, files)
        return [
            *(Change(key, how) for key, how in _differences(before, after)),
            *(Change(known.get(name, name), how, is_file=True) for name, how in changed),
        ]

    def changed_files(self, now: Mapping[str, str], folder: Path | None = None) -> list[Change]:
        """The files that differ in `now`, a path -> a SHA-256; files that were not kept count as none."""
        before = {} if self.files is None else self.files
        kept, _ = _named({"files": dict(before)}, folder)
        files, known = _named({"files": dict(now)}, folder)
        changed = _differences(kept["files"], files["files"])
        return [Change(known.get(name, name), how, is_file=True) for name, how in changed]

    def to_json(self) -> dict[str, Any]:
        """A mapping of JSON values from which `from_json` makes an equal one."""
        files = {} if self.files is None else {"files": dict(self.files)}
        pipeline = {"pipeline": self.pipeline} if self.pipeline else {}
        return self.manifest.to_json() | {"narrowed": self.narrowed} | pipeline | files

    def located(self, known: Mapping[str, str]) -> SubmittedManifest:
        """The same with the path that each name of a file stands for, where that is known."""

        def path(name: str) -> str:
            return known.get(name, name)

        found = SubmittedManifest.from_json(with_paths(self.to_json(), path))
        folder = known.get(FOLDER)
        return found if folder is None else replace(found, manifest=found.manifest.in_folder(Path(folder)))

    @classmethod
    def from_json(cls, stored: object) -> SubmittedManifest:
        """What `to_json` gave. Raises ManifestError for anything else."""
        if not isinstance(stored, dict):
            raise ManifestError("not a mapping")
        keys = dict(stored)
        narrowed, files = keys.pop("narrowed", ""), keys.pop("files", None)
        pipeline = keys.pop("pipeline", "")
        if not isinstance(narrowed, str) or _NARROWED.fullmatch(narrowed) is None:
            raise ManifestError("narrowed: neither --limit N nor --sample N")
        if files is not None and not _are_hashes(files):
            raise ManifestError("files: not a mapping of files to their SHA-256")
        if not isinstance(pipeline, str):
            raise ManifestError("pipeline: not the name of a class")
        return cls(Manifest.from_json(keys), narrowed, files, pipeline)

    @classmethod
    def parse(cls, text: bytes) -> SubmittedManifest:
        """The same from a file's contents. Raises ManifestError."""
        try:
            stored = strict_json(text)
        except ValueError as error:
            raise ManifestError(f"not JSON ({error})") from None
        return cls.from_json(stored)


def _named(kept: dict[str, Any], folder: Path | None) -> tuple[dict[str, Any], Mapping[str, str]]:
    """The mapping with the names that files have in an output, and the path of each."""
    if folder is None:
        return kept, {}
    names = PathNames(folder)
    return names.of_manifest(kept), names.known


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            yield name, "is gone"
        elif name not in before:
            yield name, "came"
        elif before[name] != now[name]:
            yield name, "changed"


def _are_hashes(files: object) -> bool:
    return isinstance(files, dict) and all(isinstance(sha256, str) for sha256 in files.values())
