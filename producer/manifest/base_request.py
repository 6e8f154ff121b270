"""What every image of a job has in common."""

from __future__ import annotations

from jobs.adapters import NONE
from jobs.models import ModelRef
from jobs.request import ImageRequest, settings_in
from producer.manifest.manifest import Manifest

_OF_JOB = tuple(name for name in settings_in("manifest") if name not in ("model", "revision"))


def base_request(manifest: Manifest, model: ModelRef) -> ImageRequest:
    """The request that every line of `manifest` begins with: its own settings, no prompt, seed 0, no LoRAs.

    What LoRAs of `settings` are, is known once their files were read, and each line has them itself.
    """
    return ImageRequest(
        prompt="",
        seed=0,
        model=model.label,
        revision=model.revision,
        **{name: getattr(manifest, name) for name in _OF_JOB},
        **manifest.settings.of_images(model.defaults) | {"loras": NONE},
    )
