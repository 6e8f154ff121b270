"""What of a model paints an image, by the pictures that its request has, and what such a request may say.

The key of a task is the names of the pictures that are given, joined by "+": "image" is image-to-image,
"image+mask_image" inpainting, "control_image" a ControlNet's, "" is text alone. One control_image is for all
ControlNets of a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from jobs.adapters import NONE
from jobs.arguments import arguments_of
from jobs.errors import RenderError
from jobs.pipelines.pipeline_class import IP_ADAPTED, Folder, Followed, Pictured, PipelineClass
from jobs.pipelines.pipeline_settings import setting_troubles
from jobs.pipelines.pipeline_trouble import Trouble, either
from jobs.pipelines.pipelines import find_painting

TASK_PICTURES: Final = ("image", "mask_image", "control_image")
"""The settings that decide a request's task."""
_FOLLOWED: Final = "ip_adapter_image"
_JOINT: Final = "+"
NEEDS: Final = {
    "strength": "image",
    "controlnet_conditioning_scale": "control_image",
    "ip_adapter_scale": _FOLLOWED,
}
"""Settings that mean nothing without another: the picture that each is about."""
_LISTED: Final = {"controlnet": "control_image", "ip_adapter": _FOLLOWED}
"""The same of what works beside a model."""
CALLED: Final = {
    "": "text-to-image",
    "image": "image-to-image",
    "image+mask_image": "inpainting",
    "control_image": "control",
    "mask_image+control_image": "inpainting by control",
    "image+control_image": "image-to-image with control",
    "image+mask_image+control_image": "inpainting with control",
}
"""What people call tasks."""


_WITHOUT_PICTURES: Final = {
    "fit": "crop",
    "controlnet": NONE,
    "controlnet_conditioning_scale": 1.0,
    "ip_adapter": NONE,
    "ip_adapter_scale": 1.0,
}
"""The defaults of what means something to some requests alone."""


def task_key(values: Mapping[str, Any]) -> str:
    """The key of the task of an image with these settings of `ImageRequest`; settings left out are None."""
    return _JOINT.join(name for name in TASK_PICTURES if values.get(name) is not None)


def task_of(asked: Pictured) -> str:
    """The key of the task of a request."""
    return _JOINT.join(name for name in TASK_PICTURES if getattr(asked, name) is not None)


def pictures_of(asked: Followed) -> tuple[str, ...]:
    """The names of all pictures of a request: those of its task, and that of its IP-Adapter."""
    return tuple(name for name in (*TASK_PICTURES, _FOLLOWED) if getattr(asked, name) is not None)


def called(pictures: str) -> str:
    """What people call images with these pictures, which are joined as in a task's key."""
    names = [name for name in pictures.split(_JOINT) if name not in ("", _FOLLOWED)]
    task = CALLED.get(_JOINT.join(names), pictures)
    return f"{task} by IP-Adapter" if _FOLLOWED in pictures.split(_JOINT) else task


def painted_by(pipeline: PipelineClass, asked: Pictured) -> PipelineClass:
    """The class that paints a request of a model of `pipeline`'s class.

    Raises RenderError, in the words of `troubles`, where the model has no such task.
    """
    key = task_of(asked)
    if key not in pipeline.tasks:
        given = {name: getattr(asked, name) for name in TASK_PICTURES}
        raise RenderError(str(_no_such_task(pipeline, given)))
    return find_painting(pipeline.tasks[key])


class AskedForwards(NamedTuple):
    """What of a request decides which class paints it and how many forwards it takes: an `Asked`."""

    scheduler: str
    num_inference_steps: int
    guidance_scale: float
    arguments: str
    strength: float | None
    image: str | None
    mask_image: str | None
    control_image: str | None


def painting_class(pipeline: PipelineClass, asked: Pictured) -> PipelineClass:
    """As `painted_by`; the model's class where it has no such task, which is told elsewhere."""
    name = pipeline.tasks.get(task_of(asked))
    return pipeline if name is None else find_painting(name)


def troubles(pipeline: PipelineClass, values: Mapping[str, Any], folder: Folder) -> Iterator[Trouble]:
    """What is wrong with an image's settings for a model of this class; `values` are those of
    `ImageRequest`, `settled`."""
    key = task_key(values)
    if key not in pipeline.tasks:
        yield _no_such_task(pipeline, values)
        return
    kind = find_painting(pipeline.tasks[key])
    yield from _picture_troubles(kind, values)
    yield from _ip_adapter_troubles(pipeline, values)
    yield from setting_troubles(kind, values, folder)


def settled(pipeline: PipelineClass | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings about pictures and adapters as a request has them: what means nothing to it is at its
    default, and a strength that is left open is that of the class that paints it.

    `values` are those of `ImageRequest`; only these settings are returned. pipeline: the model's class, None
    where it is not known: then a strength stays as it is given.
    """
    used = meant(pipeline, values)
    strength = values["strength"] if "strength" in used else None
    painting = _painting(pipeline, values)
    if strength is None and "strength" in used and painting is not None and painting.strength is not None:
        strength = painting.strength.default
    return {"strength": strength} | {
        name: values[name] if name in used else usual for name, usual in _WITHOUT_PICTURES.items()
    }


def meant(pipeline: PipelineClass | None, values: Mapping[str, Any]) -> frozenset[str]:
    """Which settings about pictures and adapters mean something to a request, its pictures among them.

    As `settled`, which puts the others at their defaults.
    """
    used = {name for name in TASK_PICTURES if values[name] is not None}
    painting = _painting(pipeline, values)
    if "image" in used and (painting is None or painting.strength is not None):
        used.add("strength")
    if "control_image" in used:
        used.add("controlnet")
        if values["controlnet"] != NONE:
            used.add("controlnet_conditioning_scale")
    if used:
        used.add("fit")
    if values[_FOLLOWED] is not None:
        used |= {_FOLLOWED, "ip_adapter"}
        if values["ip_adapter"] != NONE:
            used.add("ip_adapter_scale")
    return frozenset(used)


def _painting(pipeline: PipelineClass | None, values: Mapping[str, Any]) -> PipelineClass | None:
    """The class that paints a request; None where it is not known, or where there is none."""
    if pipeline is None or (key := task_key(values)) not in pipeline.tasks:
        return None
    return find_painting(pipeline.tasks[key])


def _no_such_task(pipeline: PipelineClass, values: Mapping[str, Any]) -> Trouble:
    """Why a model paints nothing from these pictures, at the one that is too many or lacks another."""
    given = [name for name in TASK_PICTURES if values.get(name) is not None]
    able = [key.split(_JOINT) if key else [] for key in pipeline.tasks]
    # A task with all that is given and more.
    more = [names for names in able if set(given) < set(names)]
    if more:
        missing = [name for name in min(more, key=len) if name not in given]
        field = given[-1] if given else missing[0]
        value = values.get(field)
        if not given:
            return Trouble((field,), value, f"{pipeline.name} paints from pictures: give {_all(missing)}")
        return Trouble((field,), value, f"needs {_all(missing)}: give it too, or remove {field}")
    fewer = [names for names in able if set(names) < set(given)]
    best = max(fewer, key=len, default=[])
    over = next(name for name in reversed(given) if name not in best)
    called = CALLED.get(_JOINT.join(given), "such task")
    if "control" in called:
        called = f"painting from {_all(given)}"
    what = f"{pipeline.name} has no {called} here: use a model of another class, or remove {over}"
    return Trouble((over,), values.get(over), what)


def _picture_troubles(kind: PipelineClass, values: Mapping[str, Any]) -> Iterator[Trouble]:
    """What is wrong with what a request says of its pictures, for the class that paints it."""
    if kind.takes_controlnet and values["controlnet"] == NONE:
        what = "needs a ControlNet: give `controlnet: MODEL` at the manifest's top, or remove control_image"
        yield Trouble(("control_image",), values["control_image"], what)
    if values["control_image"] is not None:
        for name, usual in (("controlnet", NONE), ("controlnet_conditioning_scale", 1.0)):
            if values[name] != usual:
                yield from _no_controlnet(kind, name, values[name])
    if values["image"] is None:
        return
    if kind.strength is None:
        if values["strength"] is not None:
            yield from _no_strength(kind, values["strength"])
        return
    steps, strength = values["num_inference_steps"], values["strength"]
    given = kind.strength.default if strength is None else strength
    if kind.strength.painted(steps, given) < 1:
        least = "above 0" if kind.strength.steps == "begun" else f"at least {1 / steps:g}"
        what = f"leaves no step of num_inference_steps = {steps}: make it {least}, or give more steps"
        yield Trouble(("strength",), given, what)
    original = arguments_of(values["arguments"]).get("original_inference_steps")
    if kind.strength.steps == "all" and original is not None and int(original * given) < steps:
        what = (
            f"leaves {int(original * given)} of original_inference_steps = {original}, and "
            f"num_inference_steps = {steps}: make it at least {steps / original:g}, or give fewer steps"
        )
        yield Trouble(("strength",), given, what)


def _ip_adapter_troubles(pipeline: PipelineClass, values: Mapping[str, Any]) -> Iterator[Trouble]:
    """What is wrong with the picture that an IP-Adapter follows."""
    picture, adapted = values.get(_FOLLOWED), values["ip_adapter"] != NONE
    if picture is not None and pipeline.name not in IP_ADAPTED:
        takers = " and ".join(sorted(IP_ADAPTED))
        what = f"{pipeline.name} takes no IP-Adapter here, only {takers} do: remove it"
        yield Trouble((_FOLLOWED,), picture, what)
    elif picture is not None and not adapted:
        what = "needs an IP-Adapter: give `ip_adapter` at the manifest's top, or remove ip_adapter_image"
        yield Trouble((_FOLLOWED,), picture, what)
    elif adapted and picture is None:
        what = "follows an ip_adapter_image: give it too, or remove ip_adapter"
        yield Trouble(("ip_adapter",), values["ip_adapter"], what)


def vain(
    pipeline: PipelineClass | None, values: Mapping[str, Any], own: Mapping[str, Any]
) -> Iterator[Trouble]:
    """What a line gives itself (`own`) that means nothing beside the pictures it has (`values`, its own and
    those of all lines). The same for all lines counts where it means something, and is in vain elsewhere."""
    pictures = {name for name in TASK_PICTURES if values.get(name) is not None}
    painting = _painting(pipeline, values)
    if pipeline is not None and painting is None:
        return  # there is no such task, which is told elsewhere
    for name, picture in (_LISTED | NEEDS).items():
        if own.get(name) not in (None, NONE) and values.get(picture) is None:
            yield Trouble((name,), own[name], f"does nothing without {picture}: give {picture}, or remove it")
    if own.get("fit") is not None and not pictures:
        what = f"does nothing without a picture: give {either(TASK_PICTURES)}, or remove it"
        yield Trouble(("fit",), own["fit"], what)
    if painting is None:
        return
    if own.get("strength") is not None and "image" in pictures:
        yield from _no_strength(painting, own["strength"])
    conditioned = own.get("controlnet_conditioning_scale")
    if conditioned is not None and "control_image" in pictures:
        yield from _no_controlnet(painting, "controlnet_conditioning_scale", conditioned)


def _no_strength(kind: PipelineClass, strength: float) -> Iterator[Trouble]:
    if kind.strength is None:
        yield Trouble(("strength",), strength, f"{kind.name} takes none: remove it")


def _no_controlnet(kind: PipelineClass, name: str, value: object) -> Iterator[Trouble]:
    if not kind.takes_controlnet:
        yield Trouble((name,), value, f"{kind.name} has no ControlNet: remove it")


def _all(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
