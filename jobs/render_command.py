"""The shell command that renders one image again, by itself: failures are looked into by it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Container
from pathlib import Path
from typing import Final

from jobs.adapters import controlnets_of, ip_adapter_of
from jobs.output.output import INPUTS
from jobs.request import PICTURES, ImageRequest

_ADAPTERS: Final = ("loras", "textual_inversions", "ip_adapter")
OF_A_FOLDER: Final = "sha256:"
"""What the revision of a folder's contents begins with; a hub's are commits."""
UNKNOWN_FOLDER: Final = "PATH/TO/"
"""What stands in a command for a folder that an output does not tell: that of a model or of inputs."""
INPUTS_FOLDER: Final = "INPUTS"
"""What stands in a command for the folder in which files lie that an output does not keep."""


def reproducing_command(
    request: ImageRequest,
    model: str,
    slots: int,
    elsewhere: Container[str] = (),
    bucket: str | None = None,
) -> str:
    """The shell command that renders a request of a job again, by itself, with as many slots.

    It is run in the output's folder; of an output in a bucket, which `bucket` names, anywhere. `model`: what
    the job's workers loaded. `elsewhere`: SHA-256 of files that the output does not keep.
    """
    parts = ["imagemill-worker", "--batch-size", str(slots), "render", "--request", request.to_json()]
    if model != request.model:
        parts += ["--model", UNKNOWN_FOLDER + Path(model).name]
    kept = INPUTS if bucket is None else bucket
    return shlex.join([*parts, *options(request, UNKNOWN_FOLDER, elsewhere, kept)])


def named_files(request: ImageRequest) -> dict[str, str]:
    """The SHA-256 of every file that a request names, and the setting that names it; latents aside."""
    pictures = {getattr(request, name): name for name in PICTURES if getattr(request, name) is not None}
    adapters = {one["sha256"]: name for name in _ADAPTERS for one in json.loads(getattr(request, name))}
    return pictures | adapters


def options(request: ImageRequest, unknown: str, elsewhere: Container[str], kept: str = INPUTS) -> list[str]:
    """The words of a command that say where a request's files and the models beside its own are.

    unknown: what stands for a folder that an output does not tell. elsewhere: SHA-256 of files that the
    output does not keep. kept: where it keeps the others; as it stands, for a command that is run in it.
    """
    words = []
    for one in controlnets_of(request.controlnet):
        if one.revision.startswith(OF_A_FOLDER):
            words += ["--controlnet", unknown + Path(one.name).name]
    adapter = ip_adapter_of(request.ip_adapter)
    if adapter is not None and adapter.revision.startswith(OF_A_FOLDER):
        words += ["--image-encoder", unknown + Path(adapter.image_encoder).name]
    files = named_files(request)
    away = [sha256 for sha256 in files if sha256 in elsewhere]
    if request.init_latents is not None or len(away) < len(files):
        words += ["--inputs", kept]
    if away:
        words += ["--inputs", unknown + INPUTS_FOLDER]
    return words
