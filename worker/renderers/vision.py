"""torchvision, which the processors of some models need, although they only read texts here."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib import import_module
from typing import Final

import torch
import transformers

from jobs.errors import ModelError

_PIPELINES: Final = frozenset({"OmniGenPipeline"})
"""Pipelines of diffusers that use it themselves."""


def check_vision(model: str, pipeline: str, parts: Iterable[str]) -> None:
    """Raises ModelError with the remedy where a model needs torchvision and it cannot be used.

    pipeline, parts: the names of the pipeline's class and of those of its components.
    """
    needing = next((name for name in (pipeline, *parts) if _needs_torchvision(name)), None)
    if needing is None:
        return
    try:
        import_module("torchvision")
    except ImportError:
        what = "which is not installed"
    except Exception as error:  # one built for another torch raises RuntimeError where it registers operators
        what = f"and the one here does not fit torch {torch.__version__} ({error})"
    else:
        return
    remedy = f"pip install 'imagemill[vision]', from the same index as torch {torch.__version__}"
    raise ModelError(
        f"model = {model}: its {needing} needs torchvision, {what}: {remedy}, and start the worker again"
    )


def _needs_torchvision(name: str) -> bool:
    """Whether a class uses torchvision: one that reads videos does, and one that is only there with it."""
    if name in _PIPELINES:
        return True
    if not name.endswith("Processor"):
        return False
    try:
        processor = getattr(transformers, name, None)
        if processor is None:
            return False
        # transformers puts a class that raises ImportError in the place of one that lacks a package.
        return "video_processor" in inspect.signature(processor.__init__).parameters or not hasattr(
            processor, "from_pretrained"
        )
    except ImportError:
        return True
