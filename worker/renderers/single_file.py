"""Single-file checkpoints: checked, and loaded by diffusers' own loader into the rest of their pipeline."""

from __future__ import annotations

import logging
import math
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from jobs.errors import ModelError
from jobs.model_files.model_folder import components
from jobs.model_files.single_file import SingleFile, find_single_file
from worker.renderers.loading import Loading
from worker.renderers.model_files import other_revision
from worker.renderers.weight_files import WeightFiles, choose_weights

_LOADER = "diffusers.loaders.single_file_model"
_MODELS = "diffusers.models.modeling_utils"
_UNUSED = re.compile(
    r"weights of the model checkpoint were not used when initializing (\w+):\s*\[(.*)\]", re.S
)


def checked_single_file(file: Path, revision: str, loading: Loading) -> SingleFile:
    """The checkpoint and its configuration, once both are known to be of `revision`. Raises ModelError."""
    single = find_single_file(file)
    sizes = [path.stat().st_size for _name, path in single.files()]
    with loading.stage("checking", str(file), files=len(sizes), size=sum(sizes)):
        found = single.revision(lambda size: loading.advance(files=1, size=size))
    if found != revision:
        raise other_revision(str(file), revision, found)
    return single


def weights_beside(single: SingleFile, variant: str | None) -> WeightFiles:
    """The weights of the components that the checkpoint does not hold, among its configuration's files.

    `variant`: as `preferred` of `choose_weights`.
    """
    listed = {name for name, _library in components(single.folder)} - {"safety_checker"} - single.held
    return choose_weights(str(single.folder), (name for name, _file in single.files()), listed, variant)


def held_bytes(single: SingleFile, dtype: torch.dtype) -> int:
    """Bytes that the checkpoint's weights take once they are converted to `dtype`; those of no part are not
    loaded."""
    prefixes = tuple(prefix for name in single.held for prefix in single.kind.parts[name].prefixes)
    return sum(
        math.prod(tensor.shape) * dtype.itemsize
        for name, tensor in single.header.tensors.items()
        if name.startswith(prefixes)
    )


def with_checkpoint(
    rest: diffusers.DiffusionPipeline,
    single: SingleFile,
    dtype: torch.dtype,
    options: Mapping[str, Any],
) -> diffusers.DiffusionPipeline:
    """`rest`, a pipeline of the components that the checkpoint does not hold, with those that it holds.

    On the CPU, in `dtype`. `options`: what the pipeline's class gets besides.
    Raises ModelError for weights that the file lacks, for weights that the configuration has no place for,
    which diffusers would leave out, and for T5 in fp16, of which it would keep no part in fp32.
    """
    if dtype == torch.float16 and "text_encoders.t5xxl.transformer.shared.weight" in single.header.tensors:
        raise ModelError(
            f"model = {single.file}: holds T5, which must not be in fp16 as a whole: use precision "
            "bf16 or fp32"
        )
    given = {name: part for name, part in rest.components.items() if name not in single.held}
    with _unused_weights() as unused:
        try:
            pipeline = type(rest).from_single_file(
                str(single.file),
                config=str(single.folder),
                local_files_only=True,
                dtype=dtype,
                **{**given, **options},
            )
        except NotImplementedError as error:
            lacking = _without_values(error)
            if not lacking:
                raise
            raise ModelError(
                f"model = {single.file}: lacks {len(lacking)} of the weights of its {lacking[0]}: fetch it "
                "again, or name another model"
            ) from error
    if unused:
        raise ModelError(
            f"model = {single.file}: its configuration {single.folder} has no place for some of its weights: "
            f"{unused[0]}: put the configuration of this model there"
        )
    for name in single.held:
        part = getattr(pipeline, name).eval()  # diffusers leaves T5 in training, where it drops values out
        if isinstance(part, transformers.PreTrainedModel):
            part.tie_weights()  # and its embedding without values where the file has it under one name alone
    return pipeline


def _without_values(error: NotImplementedError) -> list[str]:
    """`Class, name` of the weights without a value in the model that diffusers could not move for them.

    The error itself names none; the model is a variable of the loader that it came through.
    """
    for frame, _line in traceback.walk_tb(error.__traceback__):
        model = frame.f_locals.get("model")
        if isinstance(model, torch.nn.Module):
            kind = type(model).__name__
            return [f"{kind}, {name}" for name, weight in model.named_parameters() if weight.is_meta]
    return []


@contextmanager
def _unused_weights() -> Iterator[list[str]]:
    """Collects `Class: weight` of those that models loaded inside had no place for."""
    loader, models, unused = logging.getLogger(_LOADER), logging.getLogger(_MODELS), list[str]()

    def noted(record: logging.LogRecord) -> bool:
        report = _UNUSED.search(record.getMessage())
        if report is not None:
            unused.append(f"{report[1]}: {report[2].split(',')[0].strip(chr(39))}")
        elif "not used" in record.getMessage():
            unused.append(record.getMessage())  # should the report's form change
        return record.levelno >= logging.ERROR

    def of_something(record: logging.LogRecord) -> bool:
        return "kept in float32: []" not in record.getMessage()  # said of every model that has no such part

    level = loader.level
    loader.setLevel(logging.WARNING)
    loader.addFilter(noted)
    models.addFilter(of_something)
    try:
        yield unused
    finally:
        models.removeFilter(of_something)
        loader.removeFilter(noted)
        loader.setLevel(level)
