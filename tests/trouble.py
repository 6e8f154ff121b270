"""A model that has trouble with some prompts: how a test comes by a bad image.

A prompt that begins with "!raise" raises RuntimeError, "!black" gives one flat colour, "!nan" a picture
that is not finite, alone as among others; "!die" kills the process. "!hang" lasts as long as there is the
file that HANGING_FORWARD names in the environment, and the loading of any model as long as that of
HANGING_LOAD: so does what reads from a file server that is away.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs.errors import ImagemillError
from jobs.inputs.inputs import Inputs
from jobs.request import ImageRequest
from worker.engine.renderer import Bucket, Painted, Picture, Renderer, Source

_ROOT = Path(__file__).parents[1]
TROUBLED = {"PYTHONPATH": f"{_ROOT / 'tests' / 'troubled'}{os.pathsep}{_ROOT}"}
"""In the environment of a worker, gives it models that have this trouble."""


HANGING_LOAD, HANGING_FORWARD = "HANGING_LOAD", "HANGING_FORWARD"


def hang_while_asked(variable: str) -> None:
    """Returns once the file that an environment variable names is not there."""
    file = os.environ.get(variable)
    while file is not None and os.path.exists(file):  # noqa: PTH110
        time.sleep(0.05)


class Troubled:
    """A renderer that paints as another does, but for the prompts that bring trouble."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._renderer, name)

    def render(
        self, bucket: Bucket, source: Source[Any], stop: Callable[[], bool]
    ) -> Iterator[list[Painted[Any]]]:
        for painted in self._renderer.render(bucket, source, stop):
            yield [(asked, _spoilt(asked.request, picture)) for asked, picture in painted]

    def render_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Picture:
        picture = _spoilt(request, self._renderer.render_alone(request, inputs, stop))
        assert isinstance(picture, Picture)
        return picture


def _spoilt(request: ImageRequest, picture: Picture | ImagemillError) -> Picture | ImagemillError:
    match request.prompt.split(" ")[0]:
        case "!die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "!hang":
            hang_while_asked(HANGING_FORWARD)
        case "!raise":
            raise RuntimeError(f"the model was asked to fail: {request.prompt!r}")
        case "!nan" if isinstance(picture, Picture):
            return replace(picture, finite=False)
        case "!black" if isinstance(picture, Picture):
            return replace(picture, pixels=np.zeros_like(picture.pixels))
    return picture
