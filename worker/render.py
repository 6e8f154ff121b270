"""One image by itself, without Redis: how a failure is looked into."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from jobs.errors import RenderError
from jobs.latents import read_input
from jobs.manifest_errors import problems_of, report
from jobs.manifest_fields import (
    Guidance,
    ImageFormat,
    PathText,
    Precision,
    Quality,
    Revision,
    SchedulerName,
    Seed,
    Side,
    Steps,
    Text,
)
from jobs.request import ImageRequest
from jobs.settings import Settings
from worker.encode import encode
from worker.engine import Pipeline
from worker.load_renderer import load_renderer


class _Asked(BaseModel):
    """A request as a stranger's command line gives it: a manifest's own fields and bounds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Text
    negative_prompt: Text = ""
    height: Side = 512
    width: Side = 512
    num_inference_steps: Steps = 50
    guidance_scale: Guidance = 7.5
    scheduler: SchedulerName = "LMS"
    seed: Seed
    # A label: a folder's own name may stand there too.
    model: PathText
    revision: Revision
    precision: Precision = "auto"
    image_format: ImageFormat = "png"
    image_quality: Quality = 95
    init_latents: str | None = None

    @field_validator("init_latents")
    @classmethod
    def _a_hash(cls, sha: str | None) -> str | None:
        if sha is not None and not re.fullmatch("[0-9a-f]{64}", sha):
            raise PydanticCustomError("hash", "must be the SHA-256 of the latents, 64 hex digits, or null")
        return sha


def reproducing_command(request: ImageRequest, model: str, inputs: Path, rows: int) -> str:
    """The shell command that renders a request of a job again, by itself, with as many rows."""
    parts = ["imagemill-worker", "--rows", str(rows), "render", "--request", request.to_json()]
    if model != request.model:
        parts += ["--model", model]
    if request.init_latents is not None:
        parts += ["--inputs", str(inputs)]
    return shlex.join(parts)


def parse_request(text: str) -> ImageRequest:
    """The request in `text`, JSON as `ImageRequest.to_json` writes it; what may be left out has its default.

    Raises RenderError that names each field that is wrong, its value and the remedy.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RenderError(
            f"--request: is not JSON ({error}): give an object as failures.jsonl holds it, in single quotes"
        ) from None
    if not isinstance(values, dict):
        raise RenderError("--request: must be a JSON object, as failures.jsonl holds it")
    try:
        asked = _Asked.model_validate(values)
    except ValidationError as error:
        raise RenderError(report("--request", problems_of(error, None, _Asked))) from None
    return ImageRequest(**asked.model_dump())


def render(request: ImageRequest, model: str | None, inputs: Path | None, settings: Settings) -> bytes:
    """The image file of a request; as its job would write it, with the same rows on the same device.

    `model` is the folder when the request's model is one; `inputs` holds its initial latents.
    Raises ModelError, LatentsError, or RenderError when the picture is no picture.
    """
    latents = None
    if request.init_latents is not None:
        if inputs is None:
            raise RenderError("the request has initial latents: say with --inputs where they are kept")
        latents = read_input(inputs, request.init_latents)
    pipeline = Pipeline(request.model if model is None else model, request.revision, request.precision)
    picture = load_renderer(pipeline, settings).render([request], [latents], lambda: False)[0]
    if not picture.finite:
        raise RenderError("the model gave non-finite values for this request")
    return encode(picture.pixels, request)
