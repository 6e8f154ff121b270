"""Where the files of an output's requests are: those that it keeps by hash, and others by their contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jobs.entry import Entry
from jobs.file_hash import file_sha256
from jobs.inputs.inputs import kept_name, kept_path
from jobs.output.output import INPUTS, Output
from jobs.output.store import pieces
from jobs.request import ImageRequest
from producer.verify.not_comparable import NotComparable
from producer.verify.sources import Sources


class InBucket(NamedTuple):
    """A file that an output in a bucket keeps."""

    output: Output
    name: str

    def copy_to(self, output: Output) -> None:
        """Keeps it in another output too, under its name. Raises OSError."""
        with (
            self.output.store.opened(self.name, whole=True) as source,
            output.store.written(self.name) as copy,
        ):
            copy.writelines(pieces(source))


@dataclass(slots=True)
class Files:
    """The pictures, adapters and initial latents of one output's requests."""

    output: Output
    sources: Sources
    folders: Sequence[Path] = ()
    """Further outputs, or folders that hold files at any depth."""
    _found: dict[str, Path | InBucket | None] = field(default_factory=dict)
    _unread: list[Path] | None = None
    """What lies below `folders` and has no known hash yet, the last first."""

    def of(self, request: ImageRequest, job_id: str) -> dict[str, Path | InBucket]:
        """The SHA-256 of each picture and adapter of a request -> where it lies. Raises NotComparable."""
        return {sha256: self._path(sha256, job_id) for sha256 in Entry.of(request).inputs}

    def latents(self, sha256: str) -> Path | InBucket:
        """Where the initial latents of this hash lie. Raises NotComparable."""
        name = f"{sha256}.npy"
        if (kept := self._in_bucket(name)) is not None:
            return kept
        found = next((home / name for home in self._homes() if (home / name).is_file()), None)
        if found is None:
            raise _missing(f"its initial latents, {name}")
        return found

    def _homes(self) -> list[Path]:
        """The folders that may hold files by their hashes."""
        return [self.output.inputs, *(one / INPUTS for one in self.folders), *self.folders]

    def _in_bucket(self, name: str) -> InBucket | None:
        """What an output in a bucket keeps under a name."""
        kept = InBucket(self.output, f"{INPUTS}/{name}")
        return kept if self.output.in_bucket and self.output.store.exists(kept.name) else None

    def _path(self, sha256: str, job_id: str) -> Path | InBucket:
        if sha256 not in self._found:
            self._found[sha256] = self._look(sha256, job_id)
        found = self._found[sha256]
        if found is None:
            raise _missing(f"a file of its settings, SHA-256 {sha256}")
        return found

    def _look(self, sha256: str, job_id: str) -> Path | InBucket | None:
        if (in_bucket := self._in_bucket(kept_name(sha256))) is not None:
            return in_bucket
        for home in self._homes():
            if kept_path(home, sha256).is_file():
                return kept_path(home, sha256).absolute()
        kept = self.sources.manifest(job_id)
        files = {} if kept is None or kept.files is None else kept.files
        for name, contents in files.items():
            if contents == sha256 and Path(name).is_absolute() and Path(name).is_file():
                return Path(name)
        return next((path for path, contents in self._below() if contents == sha256), None)

    def _below(self) -> Iterator[tuple[Path, str]]:
        """The files below `folders` with their hashes, each read once; those that cannot be read are passed
        over."""
        if self._unread is None:
            below = [one.absolute() for folder in self.folders for one in sorted(folder.rglob("*"))]
            self._unread = below[::-1]
        while self._unread:
            path = self._unread.pop()
            try:
                contents = file_sha256(path) if path.is_file() else ""
            except OSError:
                continue
            if contents:
                self._found.setdefault(contents, path)
                yield path, contents


def _missing(what: str) -> NotComparable:
    return NotComparable(
        f"{what}, is not in the output's {INPUTS}: name a folder that holds it, at any depth, with --inputs "
        "FOLDER"
    )
