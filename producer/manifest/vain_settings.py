"""What a manifest says about pictures for all its lines, where no line has such a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from jobs.request import PICTURES
from producer.manifest.document import Location
from producer.manifest.manifest import Manifest

_NEEDS: Final = {"strength": "image", "controlnet_conditioning_scale": "control_image"}


def vain_settings(manifest: Manifest) -> Iterator[tuple[Location, str]]:
    """Each value that means nothing to any line: where it stands, and what is wrong with it.

    Nothing where prompt files may give pictures.
    """
    if manifest.prompts_from:
        return
    swept = manifest.sweep.swept()
    for name, picture in _NEEDS.items():
        if _has(manifest, picture):
            continue
        what = f"does nothing: no line has {_a(picture)}: give {picture}, or remove it"
        if name in manifest.settings.model_fields_set:
            yield ("settings", name), what
        if name in swept:
            yield ("sweep", name, 0), what
    if "fit" in manifest.settings.model_fields_set and not any(_has(manifest, name) for name in PICTURES):
        yield ("settings", "fit"), "does nothing: no line has a picture: give one, or remove it"
    if manifest.controlnet and not _has(manifest, "control_image"):
        yield ("controlnet", 0), "does nothing: no line has a control_image: give control_image, or remove it"


def _has(manifest: Manifest, picture: str) -> bool:
    """Whether a line may have a picture of its own, or of all."""
    everywhere = getattr(manifest.settings, picture, None) is not None or picture in manifest.sweep.swept()
    return everywhere or any(
        not isinstance(line, str) and getattr(line, picture, None) is not None for line in manifest.prompts
    )


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeio" else f"a {name}"
