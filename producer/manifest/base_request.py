"""What every image of a job has in common."""

from __future__ import annotations

from dataclasses import replace

from jobs.models.models import ModelRef
from jobs.pipelines.pipeline_task import settled
from jobs.request import IMAGE_SETTINGS, ImageRequest, settings_in
from producer.manifest.manifest import Manifest
from producer.manifest.written_files import WRITTEN

_OF_JOB = tuple(name for name in settings_in("manifest") if name not in ("model", "revision"))
_OF_FILES = {name: IMAGE_SETTINGS[name].default for name in WRITTEN}


def usual_request(manifest: Manifest, model: ModelRef) -> ImageRequest:
    """What a line of `manifest` is that says nothing: the manifest's settings, no prompt, seed 0, no files.

    What the files of `settings` are is known once they were read, and each line has them itself.
    """
    return ImageRequest(
        prompt="",
        seed=0,
        model=model.label,
        revision=model.revision,
        controlnet=model.controlnet,
        ip_adapter=model.ip_adapter,
        **{name: getattr(manifest, name) for name in _OF_JOB},
        **manifest.settings.of_images(model.defaults) | _OF_FILES,
    )


def base_request(manifest: Manifest, model: ModelRef) -> ImageRequest:
    """The request of a job that its lines are told by: `usual_request`, without what means nothing to it."""
    request = usual_request(manifest, model)
    return replace(request, **settled(model.pipeline_class, request.to_mapping()))
