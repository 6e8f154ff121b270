"""One image by itself, without Redis: how a failure is looked into."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path

from jobs.errors import RenderError
from jobs.latents import read_input
from jobs.request import ImageRequest
from jobs.settings import Settings
from worker.encode import encode
from worker.engine import Pipeline
from worker.load_renderer import load_renderer


def reproducing_command(request: ImageRequest, model: str, inputs: Path) -> str:
    """The shell command that renders a request of a job again, by itself."""
    parts = ["imagemill-worker", "render", "--request", request.to_json()]
    if model != request.model:
        parts += ["--model", model]
    if request.init_latents is not None:
        parts += ["--inputs", str(inputs)]
    return shlex.join(parts)


def parse_request(text: str) -> ImageRequest:
    """The request in `text`, JSON as `ImageRequest.to_json` writes it. Raises RenderError."""
    try:
        values = json.loads(text)
        unknown = sorted(set(values) - {field.name for field in fields(ImageRequest)})
        if unknown:
            raise RenderError(f"--request: there is no setting {', '.join(unknown)}")
        return ImageRequest.from_mapping(values)
    except (ValueError, TypeError) as error:
        raise RenderError(f"--request is not an image request as JSON: {error}") from None


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
