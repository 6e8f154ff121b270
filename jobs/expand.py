"""A manifest's lines into image requests, in order, each with its seed. No clock, no chance, no files."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from jobs.errors import LatentsError
from jobs.manifest import DefaultSettings, Manifest, PromptLine
from jobs.models import ModelRef
from jobs.request import REQUEST_FIELDS, Entry, ImageRequest, derived_seed

_SETTINGS = tuple(name for name in DefaultSettings.model_fields if name in REQUEST_FIELDS and name != "seed")
"""An image's settings that a manifest may give for all its lines and a line for itself."""


def base_request(manifest: Manifest, model: ModelRef) -> ImageRequest:
    """The request that every line of `manifest` begins with: its own settings, no prompt, seed 0."""
    return ImageRequest(
        prompt="",
        seed=0,
        model=model.label,
        revision=model.revision,
        precision=manifest.precision,
        image_format=manifest.image_format,
        image_quality=manifest.image_quality,
        **{name: getattr(manifest.settings, name) for name in _SETTINGS},
    )


def expand(
    manifest: Manifest,
    model: ModelRef,
    on_duplicate: Callable[[Entry], None] | None = None,
    *,
    latents: Mapping[str, str] | None = None,
) -> Iterator[Entry]:
    """Every image request of `manifest`, in its order; an image_id twice is yielded once and told.

    A line without a seed gets derived ones: they hang on the manifest's name, the line's settings and its
    number among equals, so inserting a line changes no other picture. `latents` gives the SHA-256 of each
    file of initial latents, as `jobs.manifest_latents` returns it; a manifest that names such files needs it
    (LatentsError).
    """
    hashes = {} if latents is None else latents
    ordinals: dict[bytes, int] = {}
    derived: set[bytes] = set()
    given: set[bytes] = set()
    base, defaults = base_request(manifest, model), manifest.settings
    for index, written in enumerate(manifest.prompts):
        line = PromptLine(prompt=written) if isinstance(written, str) else written
        init_latents = None
        if line.init_latents is not None:
            init_latents = hashes.get(line.init_latents)
            if init_latents is None:
                where = manifest.place("prompts", index, "init_latents")
                raise LatentsError(
                    f"{where} = {line.init_latents}: has not been read: read it before expanding"
                )
        own = {name: value for name in _SETTINGS if (value := getattr(line, name)) is not None}
        request = replace(base, prompt=line.prompt, init_latents=init_latents, **own)
        columns = {} if line.columns is None else line.columns
        images = defaults.images_per_prompt if line.images_per_prompt is None else line.images_per_prompt
        seeds = _seeds(line, defaults, images)
        if seeds is None:
            equals = hashlib.blake2b(repr(request).encode(), digest_size=16).digest()
            ordinal = ordinals.get(equals, 0)
            for _ in range(images):
                # Derived seeds have 32 bits: among many equals two can meet, and then the next one is taken.
                while True:
                    seed = derived_seed(manifest.name, request, ordinal)
                    numbered = replace(request, seed=seed)
                    key = bytes.fromhex(numbered.image_id)
                    ordinal += 1
                    if key not in derived:
                        break
                entry = Entry(request=numbered, id=line.id, columns=columns, seed_ordinal=ordinal - 1)
                derived.add(key)
                if key not in given:
                    yield entry
                elif on_duplicate is not None:
                    on_duplicate(entry)
            ordinals[equals] = ordinal
            continue
        for seed in seeds:
            numbered = replace(request, seed=seed)
            key = bytes.fromhex(numbered.image_id)
            entry = Entry(request=numbered, id=line.id, columns=columns)
            if key not in given and key not in derived:
                yield entry
            elif on_duplicate is not None:
                on_duplicate(entry)
            given.add(key)


def limit(entries: Iterable[Entry], count: int) -> Iterator[Entry]:
    """The first `count` entries."""
    return islice(entries, count)


def sample(entries: Iterable[Entry], count: int, name: str) -> list[Entry]:
    """`count` entries drawn at random, in their order; the same ones each time for the same `name`.

    The draw hangs on each image's own id, so a manifest that grows keeps most of its sample.
    """

    def lot(numbered: tuple[int, Entry]) -> bytes:
        return hashlib.sha256(f"{name}\0{numbered[1].request.image_id}".encode()).digest()

    drawn = heapq.nsmallest(count, enumerate(entries), key=lot)
    return [entry for _, entry in sorted(drawn, key=lambda numbered: numbered[0])]


def _seeds(line: PromptLine, defaults: DefaultSettings, images: int) -> Iterable[int] | None:
    """The line's given seeds; None when they are to be derived."""
    if line.seeds is not None:
        return line.seeds
    seed = line.seed if "seed" in line.model_fields_set else defaults.seed
    return None if seed is None else range(seed, seed + images)
