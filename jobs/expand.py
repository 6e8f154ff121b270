"""A manifest's lines into image requests, in order, each with its seed. No clock, no chance, no files."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from jobs.errors import LatentsError
from jobs.manifest import DefaultSettings, Manifest, PromptLine
from jobs.models import ModelRef
from jobs.request import Entry, ImageRequest, derived_seed


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
    for index, written in enumerate(manifest.prompts):
        line = _effective(written, manifest.settings)
        init_latents = None
        if line.init_latents is not None:
            init_latents = hashes.get(line.init_latents)
            if init_latents is None:
                where = manifest.place("prompts", index, "init_latents")
                raise LatentsError(
                    f"{where} = {line.init_latents}: has not been read: read it before expanding"
                )
        request = ImageRequest(
            prompt=line.prompt,
            negative_prompt=line.negative_prompt,
            height=line.height,
            width=line.width,
            num_inference_steps=line.num_inference_steps,
            guidance_scale=line.guidance_scale,
            scheduler=line.scheduler,
            seed=0,
            model=model.label,
            revision=model.revision,
            precision=manifest.precision,
            image_format=manifest.image_format,
            image_quality=manifest.image_quality,
            init_latents=init_latents,
        )
        if line.seeds is None:
            equals = hashlib.blake2b(repr(request).encode(), digest_size=16).digest()
            ordinal = ordinals.get(equals, 0)
            for _ in range(line.images):
                # Derived seeds have 32 bits: among many equals two can meet, and then the next one is taken.
                while True:
                    seed = derived_seed(manifest.name, request, ordinal)
                    numbered = replace(request, seed=seed)
                    key = bytes.fromhex(numbered.image_id)
                    ordinal += 1
                    if key not in derived:
                        break
                entry = Entry(request=numbered, id=line.id, columns=line.columns, seed_ordinal=ordinal - 1)
                derived.add(key)
                if key not in given:
                    yield entry
                elif on_duplicate is not None:
                    on_duplicate(entry)
            ordinals[equals] = ordinal
            continue
        for seed in line.seeds:
            numbered = replace(request, seed=seed)
            key = bytes.fromhex(numbered.image_id)
            entry = Entry(request=numbered, id=line.id, columns=line.columns)
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


@dataclass(frozen=True, slots=True)
class _Line:
    """One line with the manifest's settings where it has none of its own."""

    prompt: str
    negative_prompt: str
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str
    seeds: Iterable[int] | None
    """The given seeds; None when they are to be derived."""
    images: int
    id: str | None
    columns: Mapping[str, object]
    init_latents: str | None


def _effective(written: str | PromptLine, defaults: DefaultSettings) -> _Line:
    line = PromptLine(prompt=written) if isinstance(written, str) else written
    images = defaults.images_per_prompt if line.images_per_prompt is None else line.images_per_prompt
    seed = line.seed if "seed" in line.model_fields_set else defaults.seed
    seeds: Iterable[int] | None = line.seeds
    if seeds is None and seed is not None:
        seeds = range(seed, seed + images)
    return _Line(
        prompt=line.prompt,
        negative_prompt=(defaults.negative_prompt if line.negative_prompt is None else line.negative_prompt),
        height=defaults.height if line.height is None else line.height,
        width=defaults.width if line.width is None else line.width,
        num_inference_steps=(
            defaults.num_inference_steps if line.num_inference_steps is None else line.num_inference_steps
        ),
        guidance_scale=defaults.guidance_scale if line.guidance_scale is None else line.guidance_scale,
        scheduler=defaults.scheduler if line.scheduler is None else line.scheduler,
        seeds=seeds,
        images=images,
        id=line.id,
        columns={} if line.columns is None else line.columns,
        init_latents=line.init_latents,
    )
