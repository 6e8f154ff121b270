"""The text encoders of a model as its configurations on this machine tell them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from jobs.model_files.config_figures import whole_figure
from jobs.model_files.hub import HubFiles
from jobs.model_files.pipeline_folder import Read, read_in
from jobs.models.models import BUILT_IN, ModelRef
from jobs.pipelines.pipeline_class import STABLE_DIFFUSION


def text_widths(model: ModelRef) -> tuple[int, ...] | None:
    """The width of each CLIP text encoder of a model, in its order; None where that is not at hand."""
    read = _read(model)
    names = ("text_encoder",) if model.pipeline == STABLE_DIFFUSION else ("text_encoder", "text_encoder_2")
    if read is None:
        return None
    try:
        return tuple(whole_figure(read(f"{name}/config.json")["hidden_size"]) for name in names)
    except (KeyError, TypeError, ValueError):
        return None


def vocabulary(model: ModelRef) -> Collection[str]:
    """The words and parts of words of a model's tokenizer; empty where they are not at hand."""
    read = _read(model)
    if read is None:
        return ()
    for name, within in (("vocab.json", ()), ("tokenizer.json", ("model", "vocab"))):
        try:
            found = read(f"tokenizer/{name}")
            for key in within:
                found = found[key]
        except (KeyError, TypeError):
            continue
        if isinstance(found, dict):
            return frozenset(found)
    return ()


def _read(model: ModelRef) -> Read | None:
    if model.model in BUILT_IN:
        return None
    path = Path(model.model)
    if path.is_absolute():
        return read_in(path) if path.is_dir() else None
    return HubFiles(model.model, model.revision)
