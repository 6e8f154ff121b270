"""Where texts look like another tool's syntax: in the rows of a file, in a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.errors import ManifestError
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.manifest.prompt_texts import first_marked
from producer.manifest.syntax_marks import Found, marked


def marks_of_rows(
    rows: Sequence[str | Line | ManifestError], path: Path, numbers: Sequence[int]
) -> dict[int, Found]:
    """What the rows' texts have, by the place of each mark in MARKS; the numbers are the rows'."""
    found = marked([row if type(row) is str else _texts(row) for row in rows])
    return {kind: Found(count, f"{path}:{numbers[first]}") for kind, (count, first) in found.items()}


def marks_of_manifest(manifest: Manifest) -> dict[int, Found]:
    """The same for what the manifest itself says."""
    found = first_marked(manifest)
    return {kind: Found(count, manifest.place(*path)) for kind, (count, path) in found.items()}


def _texts(row: str | Line | ManifestError) -> str:
    if isinstance(row, Line):
        negative = row.settings.get("negative_prompt")
        return row.prompt if negative is None else f"{row.prompt}\n{negative}"
    return ""
