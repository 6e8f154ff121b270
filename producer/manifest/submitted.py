"""A manifest as it was submitted: what an output keeps of every submission, by the job's id.

    OUT/.imagemill/jobs/sunsets-1.json    {"name": "sunsets", …, "narrowed": "--limit 10", "files": {…}}

The keys of the manifest and two more, so that a person may compare the file with a manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.errors import ManifestError
from producer.manifest.manifest import Manifest

_NARROWED = re.compile("(?:(--limit|--sample) ([0-9]{1,18}))?")


@dataclass(frozen=True, slots=True)
class SubmittedManifest:
    """What was asked for by one submission."""

    manifest: Manifest
    """With the revision that its model had then."""
    narrowed: str = ""
    """The option that narrowed it, "--limit 10"; empty when none did."""
    files: Mapping[str, str] | None = None
    """Each file that was read for it -> the SHA-256 of its contents (of initial latents, as `jobs.latents`
    tells it). None when they were not kept, as by early versions."""

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

    def to_json(self) -> dict[str, Any]:
        """A mapping of JSON values from which `from_json` makes an equal one."""
        files = {} if self.files is None else {"files": dict(self.files)}
        return self.manifest.to_json() | {"narrowed": self.narrowed} | files

    @classmethod
    def from_json(cls, told: object) -> SubmittedManifest:
        """What `to_json` told. Raises ManifestError for anything else."""
        if not isinstance(told, dict):
            raise ManifestError("not a mapping")
        keys = dict(told)
        narrowed, files = keys.pop("narrowed", ""), keys.pop("files", None)
        if not isinstance(narrowed, str) or _NARROWED.fullmatch(narrowed) is None:
            raise ManifestError("narrowed: neither --limit N nor --sample N")
        if files is not None and not _are_hashes(files):
            raise ManifestError("files: not a mapping of files to their SHA-256")
        return cls(Manifest.from_json(keys), narrowed, files)

    @classmethod
    def parse(cls, text: bytes) -> SubmittedManifest:
        """The same out of a file's contents. Raises ManifestError."""
        try:
            return cls.from_json(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"not JSON ({error})") from None


def _are_hashes(files: object) -> bool:
    return isinstance(files, dict) and all(isinstance(sha256, str) for sha256 in files.values())
