"""The requests of a manifest without their ids, as most tests look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from jobs.entry import Entry
from jobs.models.models import ModelRef
from producer.manifest.manifest import Manifest
from producer.prompt_files.reading import Reading
from producer.requests.expand import identify


def expand(
    manifest: Manifest,
    model: ModelRef,
    on_duplicate: Callable[[Entry], None] | None = None,
    *,
    latents: Mapping[str, str] | None = None,
    reading: Reading | None = None,
) -> Iterator[Entry]:
    """Every image request of the manifest: what `identify` gives, without the ids."""
    for _, entry in identify(manifest, model, on_duplicate, latents=latents, reading=reading):
        yield entry
