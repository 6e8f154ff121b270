"""What is known of diffusers' pipelines without diffusers: tasks, settings, sizes, arguments, costs.

The facts are in pipelines.json, which tools/pipelines.py writes from the installed diffusers.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from jobs.errors import ModelError
from jobs.pipelines.pipeline_argument import Argument
from jobs.pipelines.pipeline_class import NO_GUIDANCE, PipelineClass, Stage, Strength

_FILE: Final = Path(__file__).with_name("pipelines.json")


def admitted() -> tuple[str, ...]:
    """The names of all classes that are rendered."""
    return tuple(_classes())


@cache
def argument_names() -> frozenset[str]:
    """The names of the further arguments of every class that is rendered."""
    every = (*_classes().values(), *_for_tasks().values())
    return frozenset(name for one in every for name in one.arguments)


def refusal(class_name: str) -> str | None:
    """Why pipelines of a class are not rendered, with what is; None for one that is."""
    if class_name in _classes():
        return None
    why = _table()["refused"].get(class_name, f"diffusers {_table()['diffusers']} has no such class")
    close = difflib.get_close_matches(class_name, _classes(), 3, 0.75)
    instead = f"such as {', '.join(close)}" if close else f"one of {', '.join(_classes())}"
    return f"is a {class_name}, which is not rendered: {why}. Name a model of another class, {instead}"


def find_pipeline(class_name: str) -> PipelineClass:
    """The class of this name. Raises ModelError that says why it is not rendered."""
    found = _classes().get(class_name)
    if found is None:
        raise ModelError(f"the model {refusal(class_name)}")
    return found


def find_painting(class_name: str) -> PipelineClass:
    """The class of this name that paints images, a model's own or of a task. KeyError for another."""
    return _for_tasks()[class_name] if class_name in _for_tasks() else _classes()[class_name]


def controlnet_classes(pipeline: PipelineClass) -> tuple[str, ...]:
    """diffusers' classes of ControlNets that a model of this class takes; none where it takes none here."""
    painting = {find_painting(name).controlnets: None for name in pipeline.tasks.values()}
    return tuple(dict.fromkeys(one for several in painting for one in several))


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_FILE.read_text("utf-8"))
    return table


@cache
def _classes() -> dict[str, PipelineClass]:
    return {name: _class(name, entry) for name, entry in _table()["admitted"].items()}


@cache
def _for_tasks() -> dict[str, PipelineClass]:
    return {name: _class(name, entry) for name, entry in _table()["for_tasks"].items()}


def _class(name: str, entry: Mapping[str, Any]) -> PipelineClass:
    defaults = entry["defaults"]
    strength = entry.get("strength")
    return PipelineClass(
        name=name,
        task=entry["task"],
        negative_prompt=entry["negative_prompt"],
        empty_negative_prompt=entry.get("empty_negative_prompt"),
        guidance=entry["guidance"],
        least_guidance=entry.get("least_guidance", NO_GUIDANCE),
        num_inference_steps=defaults["num_inference_steps"],
        guidance_scale=defaults.get("guidance_scale", NO_GUIDANCE),
        size=entry["size"],
        schedulers=tuple(entry["schedulers"]),
        stages=tuple(map(_stage, entry["stages"])),
        arguments={argument: _argument(one) for argument, one in entry["arguments"].items()},
        fixed={argument: (one["value"], one["why"]) for argument, one in entry.get("fixed", {}).items()},
        of=entry.get("of"),
        tasks=entry.get("tasks", {}),
        pictures=entry.get("pictures", {}),
        sized=entry.get("sized", True),
        strength=None if strength is None else Strength(strength["default"], strength["steps"]),
        conditioning_scale=entry.get("conditioning_scale"),
        controlnets=tuple(entry.get("controlnets", ())),
    )


def _argument(entry: Mapping[str, Any]) -> Argument:
    told = dict(entry)
    return Argument(told.pop("type"), told.pop("null", False), told.pop("default"), **told)


def _stage(entry: Mapping[str, Any]) -> Stage:
    def switch(key: str) -> tuple[str, float] | None:
        return (entry[key]["argument"], entry[key]["above"]) if key in entry else None

    beside = int(entry.get("controlnet", False))
    guided, unguided = (
        entry[way]["slots"] * (entry[way]["calls"] + beside) for way in ("guided", "unguided")
    )
    return Stage(entry["steps"], guided, unguided, switch("switch"), switch("more"), 1 + beside)
