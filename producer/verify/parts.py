"""Requests in the jobs that render them again: in each, all have one model, one format and one mode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jobs.ledger.job import SlotsKey
from jobs.request import IMAGE_SETTINGS, ImageRequest, settings_in
from producer.verify.files import Files, InBucket
from producer.verify.sources import Source, Sources

Mode = Literal["exact", "fast"]
_OF_JOB = settings_in("manifest")


class Kind(NamedTuple):
    """What the images of a job have in common."""

    source: Source
    base: ImageRequest
    """With the job's own settings; the rest is at its defaults."""
    mode: Mode


@dataclass(frozen=True, slots=True)
class Part:
    """The images of one job that renders them again."""

    kind: Kind
    requests: dict[str, ImageRequest] = field(default_factory=dict)
    """By image_id."""
    slots: dict[SlotsKey, int] = field(default_factory=dict)
    """With how many slots the pictures of a size were rendered on a kind of device."""
    files: dict[str, Path | InBucket] = field(default_factory=dict)
    """SHA-256 of pictures and adapters -> absolute path, or what a bucket keeps."""
    latents: dict[str, Path | InBucket] = field(default_factory=dict)
    """The same of initial latents."""


@dataclass(slots=True)
class Parts:
    """Sorts images into parts."""

    sources: Sources
    files: Files
    parts: list[Part] = field(default_factory=list)

    def add(self, request: ImageRequest, record: Mapping[str, Any]) -> None:
        """Takes an image and its record. Raises NotComparable where its model or a file is not there."""
        job_id = str(record.get("job_id"))
        files = self.files.of(request, job_id)
        sha256 = request.init_latents
        latents = {} if sha256 is None else {sha256: self.files.latents(sha256)}
        kind = Kind(self.sources.of(request, job_id), _base(request), self._mode(record, job_id))
        part = self._part(kind, _slots(record, request))
        part.requests[request.image_id] = request
        part.files.update(files)
        part.latents.update(latents)

    def _part(self, kind: Kind, slots: Iterable[tuple[SlotsKey, int]]) -> Part:
        """The first part of this kind whose pictures of the size have these slots."""
        told = dict(slots)
        for part in self.parts:
            if part.kind == kind and all(
                part.slots.get(key, number) == number for key, number in told.items()
            ):
                break
        else:
            part = Part(kind)
            self.parts.append(part)
        part.slots.update(told)
        return part

    def _mode(self, record: Mapping[str, Any], job_id: str) -> Mode:
        mode = record.get("rendered_mode")
        if mode == "alone":  # says nothing of its job's mode
            kept = self.sources.manifest(job_id)
            mode = None if kept is None else kept.manifest.mode
        return "fast" if mode == "fast" else "exact"


def _base(request: ImageRequest) -> ImageRequest:
    defaults = {name: setting.default for name, setting in IMAGE_SETTINGS.items() if not setting.required}
    own = {name: getattr(request, name) for name in _OF_JOB}
    return replace(request, prompt="", seed=0, **defaults | own)


def _slots(record: Mapping[str, Any], request: ImageRequest) -> Iterable[tuple[SlotsKey, int]]:
    """The slots of an image that shared its forwards, where its record says all that they depend on."""
    device, precision, rows = (record.get(f"rendered_{name}") for name in ("device", "precision", "rows"))
    if (
        isinstance(device, str)
        and isinstance(precision, str)
        and type(rows) is int
        and rows > 0
        and record.get("rendered_mode") in ("exact", "fast")
    ):
        yield SlotsKey(device, precision, request.revision, request.height, request.width), rows
