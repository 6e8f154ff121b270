"""Weights that a model's files lack: both libraries go on without them, transformers with random ones."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import diffusers
import torch

_REPORTED = re.compile(r"^\W*([\w.{}, -]+?)\s*\|[^\n]*MISSING", re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_REPORTER = "transformers.modeling_utils"


class _Reports(logging.Filter):
    """Takes transformers' reports on loaded weights out of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        message = _COLOURS.sub("", record.getMessage())
        found = _REPORTED.findall(message)
        # Should the report's form change, it still says the word.
        self.missing += found if found or "MISSING" not in message else [message.splitlines()[0]]
        return record.levelno >= logging.ERROR


@contextmanager
def missing_weights() -> Iterator[list[str]]:
    """Collects the names of weights that transformers' models, loaded inside, gave random values."""
    logger, reports = logging.getLogger(_REPORTER), _Reports()
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addFilter(reports)
    try:
        yield reports.missing
    finally:
        logger.removeFilter(reports)
        logger.setLevel(level)


def without_values(pipeline: diffusers.DiffusionPipeline) -> list[str]:
    """Names of weights that no file had: diffusers leaves them on the device "meta"."""
    return [
        f"{component}.{name}"
        for component, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
        for name, weight in part.named_parameters()
        if weight.is_meta
    ]
