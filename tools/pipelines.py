"""Write jobs/pipelines.json, what the producer knows of diffusers' pipelines: `python tools/pipelines.py`.

Signatures, defaults, sizes and schedulers are read from the installed diffusers; what no signature says is in
the table of tools/pipeline_table.py. Run it again when diffusers or the table has changed:
tests/tools/test_pipelines.py compares.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

import diffusers
import numpy
import torch
from diffusers.pipelines.auto_pipeline import (
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    AUTO_INPAINT_PIPELINES_MAPPING,
    AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
)

from jobs.pipeline_task import CALLED, TASK_PICTURES, task_key
from jobs.schedulers import FLOW_SCHEDULERS, OWN_SCHEDULER, SCHEDULERS
from tools.pipeline_table import ADMITTED, LIMITS, REFUSED, Known, Limits
from tools.task_table import BESIDE, FOR_TASKS, LEFT_OUT
from worker.diffusion.build_scheduler import build_flow_scheduler

FILE: Final = Path(__file__).resolve().parent.parent / "jobs" / "pipelines.json"

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
        entry["tasks"] = dict(sorted(_tasks(name, classes).items()))
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


def _tasks(name: str, classes: Mapping[str, Any]) -> dict[str, str]:
    """From the key of each task of a model's class to the class that paints it."""
    found = dict.fromkeys(ADMITTED[name].own, name)
    for painting in (*_by_mappings(name), *BESIDE.get(name, ())):
        key = _key(_pictures(classes[painting]))
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


def _pictures(pipeline: Any) -> dict[str, str]:
    """How the call of a class that needs pictures names ours."""
    takes = inspect.signature(pipeline.__call__).parameters
    if "control_mask" in takes:
        return {"mask_image": "control_mask", "control_image": "control_image"}
    if "controlnet_conditioning_scale" in takes and "control_image" not in takes:
        return {"control_image": "image"}
    return {name: name for name in TASK_PICTURES if name in takes}


def _key(pictures: Iterable[str]) -> str:
    return task_key(dict.fromkeys(pictures, ""))


def _for_task(pipeline: Any, known: Known) -> dict[str, Any]:
    """What the producer knows of a class that paints some images of a model; its sizes are the model's."""
    return _described(pipeline, known) | {"of": known.of}


def _described(pipeline: Any, known: Known) -> dict[str, Any]:
    """What the producer knows of one class."""
    # Some modules keep their annotations as texts.
    parameters = inspect.signature(pipeline.__call__, eval_str=True).parameters
    negative = parameters.get("negative_prompt")
    pictures = _pictures(pipeline)
    if not known.of:
        needed = {one for key in known.own for one in key.split("+")}
        pictures = {ours: theirs for ours, theirs in pictures.items() if ours in needed}
    key = _key(pictures) if known.of else known.own[0]
    entry: dict[str, Any] = {
        "task": CALLED[key],
        "negative_prompt": negative is not None,
        "guidance": known.guidance,
        "defaults": {"num_inference_steps": parameters["num_inference_steps"].default},
        "size": {} if known.of else _size(pipeline, known),
        "schedulers": list(_schedulers(pipeline, known)),
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
        entry["strength"] = {"default": parameters["strength"].default, "steps": _painted(pipeline, known)}
    if "controlnet_conditioning_scale" in parameters:
        entry["conditioning_scale"] = parameters["controlnet_conditioning_scale"].default
        # It is called once a step, with the slots of a call of the denoiser.
        entry["stages"] = [stage.described() | {"controlnet": True} for stage in known.stages()]
    return entry


def _painted(pipeline: Any, known: Known) -> str:
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


def _size(pipeline: Any, known: Known) -> dict[str, Any]:
    """Which sizes the class takes, and which it takes by itself."""
    source = _unparsed(pipeline)
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


def _unparsed(pipeline: Any) -> str:
    """The class's source with each statement on one line and no docstrings: what is found in it is code."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(pipeline)))
    for part in ast.walk(tree):
        if isinstance(part, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(part) is not None:
            part.body[0] = ast.Pass()
    return ast.unparse(tree) + "\n"


def _schedulers(pipeline: Any, known: Known) -> Iterator[str]:
    """The names that the class takes: the flow ones that bear being called as it calls them."""
    if pipeline.__name__ != "StableDiffusionPipeline":
        yield OWN_SCHEDULER.name
    if known.schedulers == "diffusion":
        yield from (scheduler.name for scheduler in SCHEDULERS)
    elif known.schedulers != "own":
        noises = "self.scheduler.scale_noise(" in _unparsed(pipeline)
        call = f"{known.schedulers}, scale_noise" if noises else known.schedulers
        yield from (one.name for one in FLOW_SCHEDULERS if _takes(one.name, call))


def _takes(name: str, call: str) -> bool:
    """Whether diffusers' scheduler bears a flow pipeline's call: the arguments of its `set_timesteps`, then
    all its steps. `mu` comes with dynamic shifting and, from pipelines that always give it, without; what
    begins with an image comes with `scale_noise`, and leaves out steps."""
    dynamic = (False, True) if "mu" in call else (False,)
    for shifting in dynamic:
        config = {"shift": 3.0, "use_dynamic_shifting": shifting}
        try:
            _run(build_flow_scheduler(name, config), call)
        except (AssertionError, AttributeError, TypeError, ValueError, IndexError):
            return False
    return True


def _run(scheduler: Any, call: str) -> None:
    """A flow pipeline's use of its scheduler, with a denoiser that says zeros."""
    from diffusers.pipelines.flux.pipeline_flux import retrieve_timesteps

    steps = 6
    arguments: dict[str, Any] = {}
    # FLUX and its kin leave sigmas to a scheduler that makes its own, others do not: the harder way counts.
    if "sigmas" in call:
        sigmas = numpy.linspace(1.0, 1 / steps, steps)
        kinds = {"list of": sigmas.tolist(), "tensor of": torch.from_numpy(sigmas)}
        arguments["sigmas"] = next((made for kind, made in kinds.items() if kind in call), sigmas)
    if "timesteps" in call:
        arguments["timesteps"] = numpy.linspace(1000.0, 1.0, steps).astype(numpy.int64)
    if "mu" in call:
        arguments["mu"] = 0.8
    if arguments.keys() >= {"sigmas", "timesteps"}:
        accepted = inspect.signature(scheduler.set_timesteps).parameters
        if not accepted.keys() >= {"sigmas", "timesteps"}:
            raise ValueError("takes no timesteps and sigmas at once")
        scheduler.set_timesteps(device="cpu", **arguments)
    else:
        retrieve_timesteps(scheduler, steps, "cpu", **arguments)
    sample = torch.ones(1, 1, 2, 2)
    begin = 0
    if "scale_noise" in call:
        begin = 2 * scheduler.order
        scheduler.set_begin_index(begin)
        sample = scheduler.scale_noise(sample, scheduler.timesteps[begin : begin + 1], sample)
    for timestep in scheduler.timesteps[begin:]:
        sample = scheduler.step(torch.zeros_like(sample), timestep, sample, return_dict=False)[0]
    if not bool(torch.isfinite(sample).all()):
        raise ValueError("gives no finite numbers")


def _arguments(
    pipeline: Any, parameters: Mapping[str, Any], known: Known
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The arguments of the call that a manifest may give: types, defaults, limits, and what they need."""
    source = _unparsed(pipeline)
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
