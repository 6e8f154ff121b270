"""What a model's own configurations say of its pictures: the scale of its latents, its size, its noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.model_files.config_figures import latent_scale, whole_figure
from jobs.pipelines.pipeline_class import Folder, PipelineClass
from jobs.plain_file import read_config

Read = Callable[[str], Any]
"""From a file's name in the folder to the JSON value in it; KeyError where it is not at hand."""


def read_in(folder: Path) -> Read:
    """Reads the configurations of a folder on this machine."""

    def read(name: str) -> Any:
        try:
            return read_config(folder / name)
        except (OSError, ValueError):
            raise KeyError(name) from None

    return read


def wanted_files(pipeline: PipelineClass) -> tuple[str, ...]:
    """The names of the configurations that `folder_of` looks into."""
    names = ["model_index.json", "scheduler/scheduler_config.json"]
    if "component" in pipeline.size["scale"]:
        names.append(f"{pipeline.size['scale']['component']}/config.json")
    if "config" in pipeline.size["default"]:
        names.append(f"{pipeline.size['default']['config'][0]}/config.json")
    return tuple(names)


def folder_of(pipeline: PipelineClass, read: Read) -> Folder:
    """What the configurations of a model of this class say; None where they do not, or are not at hand."""
    scale = _scale(pipeline, read)
    return Folder(scale, _size(pipeline, scale, read), _dynamic_shift(read))


def _scale(pipeline: PipelineClass, read: Read) -> int | None:
    """Pixels of a latent, as diffusers' class finds it in its VAE's configuration."""
    rule = pipeline.size["scale"]
    if "component" not in rule:
        return int(rule["usual"])
    try:
        config = read(f"{rule['component']}/config.json")
        value = config[rule["key"]] if rule["key"] in config else config[rule["or"]]
        return latent_scale(value, rule["less"]) if "less" in rule else whole_figure(value)
    except (KeyError, TypeError, ValueError):
        return None


def _size(pipeline: PipelineClass, scale: int | None, read: Read) -> tuple[int, int] | None:
    """Height and width, by the class's own rule."""
    rule = pipeline.size["default"]
    if "pixels" in rule:
        height, width = rule["pixels"]
        return height, width
    if "latents" in rule:
        return None if scale is None else _square(rule["latents"] * scale)
    try:
        if "index" in rule:
            return _square(whole_figure(read("model_index.json").get(rule["index"]) or rule["else"]))
        component, key = rule["config"]
        sample = read(f"{component}/config.json").get(key, rule.get("else"))
        height, width = sample if isinstance(sample, list) else (sample, sample)
        return None if scale is None else (whole_figure(height) * scale, whole_figure(width) * scale)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _square(side: int) -> tuple[int, int]:
    return side, side


def _dynamic_shift(read: Read) -> bool | None:
    try:
        return bool(read("scheduler/scheduler_config.json").get("use_dynamic_shifting", False))
    except (KeyError, AttributeError):
        return None


def painted_multiple(pipeline: PipelineClass, folder: Folder) -> tuple[int, int] | None:
    """The model's own size if a picture may have it, else None."""
    if folder.size is None:
        return None
    step = math.lcm(8, pipeline.multiple(folder))
    return folder.size if all(side > 0 and side % step == 0 for side in folder.size) else None
