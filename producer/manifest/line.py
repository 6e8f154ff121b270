"""One prompt as its author wrote it, in a manifest or in a prompt file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from producer.manifest.manifest import Manifest
from producer.manifest.parts import LINE_SETTINGS, DefaultSettings
from producer.manifest.single_arguments import folded
from producer.manifest.template import rendered

_NONE: Mapping[str, Any] = {}


# A named tuple is made in a third of the time of a frozen dataclass, and there are millions.
class Line(NamedTuple):
    """A prompt and its own settings; the manifest gives those that are left out."""

    prompt: str
    settings: Mapping[str, Any]
    """The LINE_SETTINGS that it has of its own."""
    images: int
    seeds: Sequence[int] | None
    """The given seeds, one an image; None derives them."""
    id: str | None
    columns: Mapping[str, Any]
    init_latents: str | None
    """The path of a file."""


def line_of(values: dict[str, Any], defaults: DefaultSettings) -> Line:
    """The line that says `values`, each of them as a PromptLine would hold it."""
    values = folded(values, defaults.arguments)
    seeds = values.get("seeds")
    if seeds is not None:
        images = len(seeds)
    else:
        own_images = values.get("images_per_prompt")
        images = defaults.images_per_prompt if own_images is None else own_images
        seed = values.get("seed", defaults.seed)
        if seed is not None:
            seeds = range(seed, seed + images)
    own = {name: values[name] for name in LINE_SETTINGS if values.get(name) is not None}
    columns = values.get("columns")
    return Line(
        values["prompt"],
        own if own else _NONE,
        images,
        seeds,
        values.get("id"),
        _NONE if columns is None else columns,
        values.get("init_latents"),
    )


def written_lines(manifest: Manifest) -> Iterator[Line]:
    """The lines that are in the manifest itself, templates filled in."""
    for written in manifest.prompts:
        if isinstance(written, str):
            yield line_of({"prompt": written}, manifest.settings)
            continue
        values = {name: getattr(written, name) for name in written.model_fields_set}
        line = line_of(values, manifest.settings)
        if written.variables is None:
            yield line
            continue
        sample_seed = 0 if written.sample_seed is None else written.sample_seed
        for prompt in rendered(line.prompt, written.variables, written.sample, sample_seed):
            yield line._replace(prompt=prompt)
