"""Write jobs/pipelines/pipelines.json, what is known of diffusers' pipelines: `python tools/pipelines.py`.

Signatures, defaults, sizes and schedulers are read from the installed diffusers; what no signature says is in
the tables of tools/pipeline_table.py and tools/task_table.py. Run it again when diffusers or a table has
changed: tests/tools/test_pipelines.py compares.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

import diffusers

from jobs.pipelines.pipeline_task import CALLED
from tools.known_pipeline import Known, Limits
from tools.pipeline_schedulers import schedulers_of
from tools.pipeline_source import unparsed
from tools.pipeline_table import ADMITTED, LIMITS, REFUSED
from tools.pipeline_tasks import controlnets_of, key_of, painted_steps, pictures_of, tasks_of
from tools.task_table import FOR_TASKS

FILE: Final = Path(__file__).resolve().parent.parent / "jobs" / "pipelines" / "pipelines.json"

_OURS: Final = frozenset(
    {
        "self",
        "prompt",
        "negative_prompt",
        "height",
        "width",
        "num_inference_steps",
        "strength",
        "controlnet_conditioning_scale",
    }
)
_OF_PYTHON: Final = frozenset({"generator", "latents", "output_type", "return_dict", "num_images_per_prompt"})
_PLAIN: Final = frozenset({"self", "prompt", "args", "kwargs"})
_OBJECTS: Final = re.compile(r"embeds|image|img_|mask|callback|_kwargs$|latents|cu_seqlens|fonts|_embedding$")
"""Arguments that no JSON can be, or that are about pictures that are given."""
_SCALES: Final = (
    (r"2 \*\* \(len\(self\.(vae|movq|vqvae)\.config\.(block_out_channels)\) - 1\)", 1),
    (r"2 \*\* \(len\(self\.(vae)\.config\.(encoder_block_out_channels)\) - 1\)", 1),
    (r"2 \*\* \(?len\(self\.(vae)\.config\.(block_out_channels)\)\)?", 0),
    (r"2 \*\* len\(self\.(vae)\.(temperal_downsample)\)", 0),
    (r"self\.(vae)\.config\.(spatial_compression_ratio)", None),
)
"""How pipelines say how many pixels a latent is wide, and what is taken off the length of the list."""


def described() -> dict[str, Any]:
    """The whole table as JSON values. ValueError for a class that is new in diffusers."""
    classes = dict(_classes())
    unknown = (ADMITTED.keys() | REFUSED.keys()) - classes.keys()
    if unknown:
        raise ValueError(f"diffusers {diffusers.__version__} has no {', '.join(sorted(unknown))}")
    admitted = {name: _described(classes[name], known) for name, known in sorted(ADMITTED.items())}
    for name, entry in admitted.items():
        entry["tasks"] = dict(sorted(tasks_of(name, classes).items()))
    for_tasks = {name: _for_task(classes[name], known) for name, known in sorted(FOR_TASKS.items())}
    for name, entry in for_tasks.items():
        entry["size"] = admitted[FOR_TASKS[name].of or ""]["size"]
    refused = {name: _why_refused(name, one) for name, one in classes.items() if name not in ADMITTED}
    return {
        "diffusers": diffusers.__version__,
        "admitted": admitted,
        "for_tasks": for_tasks,
        "refused": refused,
    }


def written() -> str:
    """The file's text: an entry a line, so that a change of diffusers shows as a readable difference."""
    table = described()
    parts = []
    for part in ("admitted", "for_tasks", "refused"):
        lines = [f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in table[part].items()]
        parts.append(f'  "{part}": {{\n' + ",\n".join(lines) + "\n  }")
    return f'{{\n  "diffusers": "{table["diffusers"]}",\n' + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Write the file."""
    FILE.write_text(written(), "utf-8")
    table = json.loads(FILE.read_text("utf-8"))
    sys.stdout.write(f"{len(table['admitted'])} admitted, {len(table['refused'])} refused\n")


def _classes() -> Iterator[tuple[str, Any]]:
    """Every pipeline class that diffusers exports, by name."""
    for name in sorted(dir(diffusers)):
        if name.endswith("Pipeline") and name != "DiffusionPipeline":
            yield name, getattr(diffusers, name)


def _why_refused(name: str, pipeline: Any) -> str:
    """Why a class is not admitted: from the table, else from what its call takes."""
    if name in REFUSED:
        return REFUSED[name]
    if name in FOR_TASKS:
        return f"it is what paints some images of a {FOR_TASKS[name].of}: save the model as that"
    if name.endswith("ModularPipeline"):
        return "it is a modular pipeline, of which no folder says how it is called"
    if name.endswith("OnnxPipeline") or name.startswith("Onnx"):
        return "it runs by ONNX"
    if pipeline.__module__.startswith("diffusers.utils.dummy"):
        return "it needs a package that imagemill does not install"
    if ".deprecated." in pipeline.__module__:
        return "diffusers has given it up"
    parameters = inspect.signature(pipeline.__call__).parameters
    takes = set(parameters)
    if any(word in one for one in takes for word in ("audio", "video", "frames")):
        return "it does not make pictures, but videos or sound"
    pictures = sorted(one for one in takes if re.search(r"(^|_)images?$", one) and "ip_adapter" not in one)
    if pictures:
        return f"it needs a picture to begin with ({', '.join(pictures)})"
    if "prompt" not in takes:
        return "its call takes no prompt"
    needs = [name for name, one in parameters.items() if one.default is one.empty and name not in _PLAIN]
    if needs:
        return f"it needs {', '.join(needs)}, which no manifest can give"
    raise ValueError(f"{name} is in no list: add it to tools/pipeline_table.py")


def _for_task(pipeline: Any, known: Known) -> dict[str, Any]:
    """What the producer knows of a class that paints some images of a model; its sizes are the model's."""
    return _described(pipeline, known) | {"of": known.of}


def _described(pipeline: Any, known: Known) -> dict[str, Any]:
    """What the producer knows of one class."""
    # Some modules keep their annotations as texts.
    parameters = inspect.signature(pipeline.__call__, eval_str=True).parameters
    negative = parameters.get("negative_prompt")
    pictures = pictures_of(pipeline)
    if not known.of:
        needed = {one for key in known.own for one in key.split("+")}
        pictures = {ours: theirs for ours, theirs in pictures.items() if ours in needed}
    key = key_of(pictures) if known.of else known.own[0]
    entry: dict[str, Any] = {
        "task": CALLED[key],
        "negative_prompt": negative is not None,
        "guidance": known.guidance,
        "defaults": {"num_inference_steps": parameters["num_inference_steps"].default},
        "size": {} if known.of else _size(pipeline, known),
        "schedulers": list(schedulers_of(pipeline, known)),
        "stages": [stage.described() for stage in known.stages()],
        "arguments": dict(_arguments(pipeline, parameters, known)),
    }
    if negative is not None:
        # Where guidance is only on with a negative prompt, none must not switch it off without a word.
        without = "has_neg_prompt" in inspect.getsource(pipeline.__call__)
        entry["empty_negative_prompt"] = "" if without else negative.default
    if known.guidance is not None:
        default = parameters[known.guidance].default if known.guides is None else known.guides
        entry["defaults"]["guidance_scale"] = float(default)
        entry["least_guidance"] = known.least
    if known.fixed:
        entry["fixed"] = {name: {"value": value, "why": why} for name, (value, why) in known.fixed.items()}
    return entry | _of_pictures(pipeline, parameters, pictures, known)


def _of_pictures(
    pipeline: Any, parameters: Mapping[str, Any], pictures: Mapping[str, str], known: Known
) -> dict[str, Any]:
    """What the producer knows of a class's pictures; nothing of one that paints from text alone."""
    entry: dict[str, Any] = {}
    if pictures:
        entry |= {"pictures": pictures, "sized": "height" in parameters}
    if "strength" in parameters:
        entry["strength"] = {
            "default": parameters["strength"].default,
            "steps": painted_steps(pipeline, known),
        }
    if "controlnet_conditioning_scale" in parameters:
        entry["conditioning_scale"] = parameters["controlnet_conditioning_scale"].default
        entry["controlnets"] = sorted(controlnets_of(pipeline))
        # It is called once a step, with the slots of a call of the denoiser.
        entry["stages"] = [stage.described() | {"controlnet": True} for stage in known.stages()]
    return entry


def _size(pipeline: Any, known: Known) -> dict[str, Any]:
    """Which sizes the class takes, and which it takes by itself."""
    source = unparsed(pipeline)
    parameters = inspect.signature(pipeline.__call__).parameters
    size: dict[str, Any] = {"multiple": known.multiple, "scale": _scale(source, known)}
    given = [parameters[side].default for side in ("height", "width") if side in parameters]
    sample = re.search(r"self\.(transformer|unet)\.config\.sample_size", source)
    always = re.search(r"self\.default_sample_size = (\d+)\n", source)
    if known.default is not None:
        size["default"] = known.default
    elif given and all(type(side) is int for side in given):
        size["default"] = {"pixels": given}
    elif always is not None:
        size["default"] = {"latents": int(always[1])}
    elif sample is not None:
        fallback = re.search(r"self\.default_sample_size = \(?.*?else (\d+)\s*\)?\n", source, re.DOTALL)
        size["default"] = {"config": [sample[1], "sample_size"]}
        if fallback is not None:
            size["default"]["else"] = int(fallback[1])
    else:
        raise ValueError(f"{pipeline.__name__}: its default size is not known: add it to the table")
    if known.sizes is not None:
        size["sizes"] = [list(one) for one in known.sizes(sys.modules[pipeline.__module__])]
    if known.unless is not None:
        size["unless"] = known.unless
    if known.area:
        size["area"] = known.area
    return size


def _scale(source: str, known: Known) -> dict[str, Any]:
    """Where a folder says how many pixels a latent is wide, and what it usually is."""
    if known.scale is not None:
        return dict(known.scale) if isinstance(known.scale, Mapping) else {"usual": known.scale}
    for pattern, less in _SCALES:
        found = re.search(pattern, source)
        if found is not None:
            usual = re.search(r"self\.vae_scale_factor\w* = .*?else (\d+)\s", source, re.DOTALL)
            scale: dict[str, Any] = {"component": found[1], "key": found[2]}
            if less is not None:
                scale["less"] = less
            return scale | {"usual": int(usual[1]) if usual is not None else 8}
    raise ValueError(f"{source[:60]}: how wide a latent is is not known: add it to the table")


def _arguments(
    pipeline: Any, parameters: Mapping[str, Any], known: Known
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The arguments of the call that a manifest may give: types, defaults, limits, and what they need."""
    source = unparsed(pipeline)
    for name, parameter in parameters.items():
        if (
            name in _OURS | _OF_PYTHON | known.fixed.keys()
            or name == known.guidance
            or name in known.left_out
            or name.startswith("_")
            or (_OBJECTS.search(name) and not (name == "image_guidance_scale" and known.own != ("",)))
            or parameter.kind is parameter.VAR_KEYWORD
        ):
            continue
        kind = _kind(parameter.annotation, parameter.default)
        if kind is None:
            continue
        default = parameter.default
        entry: dict[str, Any] = {"type": kind}
        # Sana's instruction is a list by default, and none at None; so with the timesteps of its sprint.
        lifted = isinstance(default, list) or name == "intermediate_timesteps"
        if default is None or lifted or NoneType in get_args(parameter.annotation):
            entry["null"] = True
        entry["default"] = list(default) if isinstance(default, tuple) else default
        entry |= LIMITS.get(name, Limits()).described()
        most = re.search(rf"\b{name} > (\d+):", source)
        if most is not None:
            entry["most"] = int(most[1])
        entry |= known.needs.get(name, {})
        yield name, entry


def _kind(annotation: Any, default: Any) -> str | None:
    """The type of JSON value that an argument takes; None for one that no JSON is."""
    if annotation is inspect.Parameter.empty:
        annotation = type(default)
    union = get_origin(annotation) in (Union, UnionType)
    for one in get_args(annotation) if union else (annotation,):
        plain = {bool: "boolean", int: "whole number", float: "number", str: "text"}.get(one)
        if plain is not None:
            return plain
        if get_origin(one) is tuple and get_args(one) == (int, int):
            return "pair of whole numbers"
        if get_origin(one) in (list, tuple):
            inner = {int: "whole numbers", float: "numbers", str: "texts"}.get(get_args(one)[0])
            if inner is not None:
                return f"list of {inner}"
    return None


if __name__ == "__main__":
    main()
