"""Whether the texts of a manifest fit into its JPEGs, before anything is queued."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from jobs.errors import ManifestError
from jobs.models.models import ModelRef
from jobs.output.jpeg_text import SEGMENT, jpeg_trouble
from jobs.request import ImageRequest
from producer.manifest.base_request import base_request
from producer.manifest.line import Line, written_lines
from producer.manifest.manifest import Manifest
from producer.manifest.problems import MAX_REPORTED

_LONGEST: Final = 7
"""Bytes of one character at most, in either segment: a quotation mark in XML of JSON."""
_DERIVED_SEED: Final = 2**32 - 1
"""The largest seed of a line that is given none."""
_OTHERS: Final = 4000
"""Bytes that everything but texts takes at most."""


@dataclass(frozen=True, slots=True)
class JpegCheck:
    """Checks lines against the room that a JPEG has for how it was made."""

    longest: ImageRequest
    """What a line gets that has nothing of its own, with the longest of the values that are swept."""
    swept: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Manifest, model: ModelRef) -> JpegCheck | None:
        """The check for the lines of a manifest; None where its pictures are no JPEGs."""
        if manifest.image_format != "jpeg":
            return None
        swept = manifest.sweep.swept()
        longest: dict[str, Any] = {"seed": _DERIVED_SEED}
        for name, values in swept.items():
            longest[name] = max(values, key=lambda value: len(json.dumps(value)))
        return cls(replace(base_request(manifest, model), **longest), tuple(swept))

    @property
    def surely(self) -> int:
        """Characters of a prompt that surely fit with no more than what every line has."""
        return (SEGMENT - _OTHERS - _LONGEST * _texts(self.longest.to_mapping())) // _LONGEST

    def trouble(self, line: Line) -> str | None:
        """What of the line is too long, with the remedy; None when all its pictures hold it."""
        if len(line.prompt) + _texts(line.settings) <= self.surely:
            return None
        own = {name: value for name, value in line.settings.items() if name not in self.swept}
        if line.seeds is not None and "seed" not in self.swept:
            own["seed"] = max(line.seeds)
        return jpeg_trouble(replace(self.longest, prompt=line.prompt, **own))


def check_jpegs(manifest: Manifest, model: ModelRef) -> None:
    """Raises ManifestError that names every prompt of the manifest, up to 20, that no JPEG holds. Rows of
    prompt files are checked where they are read, and what is drawn from templates where it is drawn."""
    check = JpegCheck.of(manifest, model)
    if check is None or manifest.syntax == "dynamic":
        return
    found: list[str] = []
    for index, written in enumerate(manifest.prompts):
        alone = manifest.model_copy(update={"prompts": (written,)})
        trouble = next((told for line in written_lines(alone) if (told := check.trouble(line))), None)
        if trouble is not None:
            found.append(f"{manifest.place('prompts', index)}: {trouble}")
        if len(found) > MAX_REPORTED:
            raise ManifestError("\n".join([*found[:MAX_REPORTED], "and more"]))
    if found:
        raise ManifestError("\n".join(found))


def _texts(settings: Mapping[str, Any]) -> int:
    """The characters of the texts among the settings."""
    return sum(len(value) for value in settings.values() if isinstance(value, str))
