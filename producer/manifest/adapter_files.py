"""The files of adapters of any kind that lines name: where they lie, and what people call them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import InputError, ManifestError
from jobs.location import names_bucket
from jobs.wording import shortened
from producer.bucket_files.fetched_files import near


@dataclass(slots=True)
class AdapterFiles:
    """What all kinds of adapters have in common: the manifest's folder, and the files that were asked for."""

    base: Path | None = None
    """The manifest's own folder, to which paths in rows are relative; None where it is not known."""
    paths: dict[str, str] = field(default_factory=dict, init=False)
    """The SHA-256 of each file that was asked for -> its absolute path."""
    remarks: dict[str, None] = field(default_factory=dict, init=False)
    """What people should know of files that are used, each once, in order."""
    _given: int = field(default=0, init=False)

    def absolute(self, file: str) -> Path:
        """Where a file lies. Raises ManifestError for a relative path where the folder is not known, and for
        one of a bucket that cannot be read."""
        if names_bucket(file):
            try:
                return near(file)
            except InputError as error:
                raise ManifestError(str(error)) from None
        # Path.expanduser raises for an unknown user.
        path = Path(os.path.expanduser(file))  # noqa: PTH111
        if path.is_absolute():
            return path
        if self.base is None:
            raise ManifestError(f"{shortened(file)}: is relative, and to what is not known: write it out")
        return self.base / path

    def called(self, file: str) -> str:
        """What people call a file: a path as it is from the manifest's folder."""
        path = Path(file)
        if names_bucket(file):
            return shortened(file)
        if self.base is not None and path.is_relative_to(self.base):
            path = path.relative_to(self.base)
        return shortened(str(path))

    def new(self) -> list[tuple[str, str]]:
        """The SHA-256 and the path of each file that was first asked for since the last call."""
        if len(self.paths) == self._given:
            return []
        new = list(self.paths.items())[self._given :]
        self._given += len(new)
        return new
