"""Which classes of diffusers paint the images of a model, and from which pictures."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import diffusers
from diffusers.pipelines.auto_pipeline import (
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    AUTO_INPAINT_PIPELINES_MAPPING,
    AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
)

from jobs.pipelines.pipeline_task import TASK_PICTURES, task_key
from tools.known_pipeline import Known
from tools.pipeline_table import ADMITTED
from tools.task_table import BESIDE, FOR_TASKS, LEFT_OUT


def tasks_of(name: str, classes: Mapping[str, Any]) -> dict[str, str]:
    """From the key of each task of a model's class to the class that paints it."""
    found = dict.fromkeys(ADMITTED[name].own, name)
    for painting in (*_by_mappings(name), *BESIDE.get(name, ())):
        key = key_of(pictures_of(classes[painting]))
        if painting not in LEFT_OUT and key not in found:
            found[key] = painting
    unknown = set(found.values()) - FOR_TASKS.keys() - ADMITTED.keys()
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: add it to tools/task_table.py")
    return found


def _by_mappings(name: str) -> Iterator[str]:
    """The classes that diffusers' AutoPipelines make of a model's class, without ControlNet and with."""
    mappings = (
        AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
        AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
        AUTO_INPAINT_PIPELINES_MAPPING,
    )
    keys = [key for mapping in mappings for key, one in mapping.items() if one.__name__ == name]
    for key in keys[:1]:
        text_alone = AUTO_TEXT2IMAGE_PIPELINES_MAPPING.get(key)
        if text_alone is not None and text_alone.__name__ != name:
            return  # a model of a class that only paints from pictures need not paint from text
        plain = key.removesuffix("-pag")
        controlled = f"{plain}-controlnet{key.removeprefix(plain)}"
        yield from (mapping[key].__name__ for mapping in mappings[1:] if key in mapping)
        yield from (mapping[controlled].__name__ for mapping in mappings if controlled in mapping)


def pictures_of(pipeline: Any) -> dict[str, str]:
    """How the call of a class that needs pictures names ours."""
    takes = inspect.signature(pipeline.__call__).parameters
    if "control_mask" in takes:
        return {"mask_image": "control_mask", "control_image": "control_image"}
    if "controlnet_conditioning_scale" in takes and "control_image" not in takes:
        return {"control_image": "image"}
    return {name: name for name in TASK_PICTURES if name in takes}


def controlnets_of(pipeline: Any) -> set[str]:
    """The classes of ControlNets that a class of pipelines takes; one for several of them is none itself, and
    one that is told its kind of picture needs what no request says."""
    annotation = inspect.signature(pipeline.__init__, eval_str=True).parameters["controlnet"].annotation
    named = set(re.findall(r"\w*ControlNet\w*Model\b", str(annotation)))
    return {name for name in named if "Multi" not in name and "Union" not in name}


def key_of(pictures: Iterable[str]) -> str:
    return task_key(dict.fromkeys(pictures, ""))


def painted_steps(pipeline: Any, known: Known) -> str:
    """Which steps are painted at a strength, by the formula in the class's module or its part's."""
    if known.keeps_steps:
        return "all"
    sources = [pipeline, *_parts(pipeline)]
    text = "".join(inspect.getsource(sys.modules[one.__module__]) for one in sources)
    if "min(int(num_inference_steps * strength), num_inference_steps)" in text:
        return "whole"
    if "min(num_inference_steps * strength, num_inference_steps)" in text:
        return "begun"
    raise ValueError(f"{pipeline.__name__}: which steps it paints at a strength is not known")


def _parts(pipeline: Any) -> Iterator[Any]:
    """The pipelines that a combined one calls."""
    name = pipeline.__name__.replace("CombinedPipeline", "Pipeline")
    if name != pipeline.__name__:
        yield getattr(diffusers, name)
