"""What came of an image that a pipeline painted: its picture, its own error, or one of the device."""

from __future__ import annotations

from jobs.errors import ImagemillError, RenderError
from worker.diffusion.painter import Painting
from worker.diffusion.sharing_errors import CannotShare
from worker.engine.renderer import BrokenDevice, OutOfMemory, Picture, Stopped, first_line
from worker.error_frames import drop_frames
from worker.renderers.device import kind_of_error


def outcome_of(painting: Painting | Exception) -> Picture | ImagemillError:
    """An image's picture, or its own error. Raises Stopped, and what is the device's."""
    return picture_of(painting) if isinstance(painting, Painting) else failure_of(painting)


def failure_of(error: Exception) -> ImagemillError:
    """An image's own error, without its traceback. Raises Stopped, and what is the device's."""
    drop_frames(error)
    if isinstance(error, ImagemillError):
        return error
    if isinstance(error, CannotShare):
        return RenderError(str(error))
    if isinstance(error, Stopped | OutOfMemory | BrokenDevice):
        raise type(error)(*error.args) from error  # again: an error holds the call that raises it
    kind = kind_of_error(error)
    if kind is not None:
        raise kind(str(error)) from error
    return RenderError(first_line(error))


def picture_of(painting: Painting) -> Picture:
    """What was painted as the engine takes it."""
    return Picture(painting.pixels, painting.finite, painting.prompt_cut)
