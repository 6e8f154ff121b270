"""One image by itself, without Redis: how a failure is looked into."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from jobs.bounds import step_trouble
from jobs.columns import RENDERED_PREFIX
from jobs.errors import ImagemillError, RenderError
from jobs.inputs.inputs import Inputs
from jobs.models.models import is_path
from jobs.output.files import METADATA
from jobs.pipelines.pipeline_task import vain
from jobs.plain_file import plain_lines
from jobs.request import IMAGE_SETTINGS, ImageRequest
from jobs.settings import Settings
from jobs.strict_json import strict_json
from jobs.wording import printable, shortened
from worker.encode import encode, read_file
from worker.engine.renderer import BrokenDevice, Bucket, OutOfMemory, Picture, Pipeline, Renderer
from worker.render_inputs import further_of, inputs_of, output_of
from worker.renderers.load_renderer import load_renderer

_SLOTS = range(1, 1024 + 1)
"""The slots that a forward may have: what --batch-size takes, and 1 for an image alone."""


def parse_request(text: str, where: str = "--request") -> ImageRequest:
    """The request in `text`, JSON as `ImageRequest.to_json` writes it; what may be left out has its default.

    Raises RenderError that names `where` and each field that is wrong, its value and the remedy.
    """
    try:
        values = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise RenderError(
            f"{where}: is not JSON ({error}): give an object as failures.jsonl holds it, in single quotes"
        ) from None
    if not isinstance(values, dict):
        raise RenderError(f"{where}: must be a JSON object, as failures.jsonl holds it")
    if troubles := list(_troubles(values)):
        raise _wrong(where, troubles)
    # As a manifest's: a scheduler's other names mean the same, and 7 is 7.0.
    meant = {name: IMAGE_SETTINGS[name].meant(value) for name, value in values.items()}
    own = {name: value for name, value in meant.items() if not IMAGE_SETTINGS[name].left_out(value)}
    if in_vain := [str(trouble) for trouble in vain(None, meant, own)]:
        raise _wrong(where, in_vain)
    return ImageRequest.from_mapping(meant)


def _wrong(where: str, troubles: Sequence[str]) -> RenderError:
    return RenderError("\n".join(f"{where}: {printable(trouble)}" for trouble in troubles))


def _troubles(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a request read as JSON: field, value and remedy."""
    for name, value in values.items():
        setting = IMAGE_SETTINGS.get(name)
        if setting is None:
            close = difflib.get_close_matches(name, IMAGE_SETTINGS, 1) or list(IMAGE_SETTINGS)
            yield f"{shortened(name)}: no such setting: use {', '.join(close)}"
        elif not setting.is_right(value):
            trouble = step_trouble(setting.values, value)
            must = f"must be {setting.words}" if trouble is None else trouble
            yield f"{name} = {shortened(json.dumps(value))}: {must}"
    for name, setting in sorted(IMAGE_SETTINGS.items()):
        if setting.required and name not in values:
            yield f"{name}: is missing: add it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """An image to render, and how it was or will be."""

    request: ImageRequest
    slots: int | None
    """Of its forwards; None: as few as the image takes, which the loaded model knows."""
    precision: str
    """What it is rendered in; may be auto."""
    perhaps_alone: bool = False
    """Whether it may be one of those that are rendered once more, alone and in fp32: it is if it had as few
    slots as it takes."""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """Device and versions that rendered it, where that is known."""
    says_source: bool = True
    """Whether its file says that an algorithm made it; an early version's does not."""
    remarks: tuple[str, ...] = ()
    """Why the bytes may differ from those of its job."""
    output: Path | None = None
    """The output that its file lies in, where the files are that it names; None where that is not known."""


def reproduction_as_asked(request: ImageRequest, slots: int | None) -> Reproduction:
    """A request alone; without `slots` it has as few as it needs."""
    remark = "no --batch-size: in a job, which has more slots, bytes may differ"
    return Reproduction(
        request=request,
        slots=slots,
        precision=request.precision,
        remarks=(remark,) if slots is None else (),
    )


def reproduction_of(file: Path, slots: int | None) -> Reproduction:
    """The image of a file that imagemill wrote, rendered as the metadata next to it says.

    Raises OutputError for a file that is none, RenderError for a request in it that is wrong.
    """
    picture, request = read_file(file)
    request = parse_request(request.to_json(), str(file))
    rendered, says_source = _rendered(file, request.image_id), picture.source_type is not None
    if rendered is None:
        asked = reproduction_as_asked(request, slots)
        unknown = f"no {METADATA} next to {file} says how it was rendered"
        remarked = (unknown, *asked.remarks)
        return replace(asked, says_source=says_source, remarks=remarked, output=output_of(file))
    its_slots, precision, mode = rendered["rows"], rendered["precision"], rendered["mode"]
    remarks = []
    if mode == "fast":
        remarks.append("it was rendered in mode fast: bytes may differ")
    if slots is not None and mode == "alone":
        remarks.append(f"it was rendered with one image a forward: --batch-size {slots} has no effect")
        slots = its_slots
    elif slots is not None and slots != its_slots:
        remarks.append(f"it was rendered with {its_slots} slots: with {slots}, bytes may differ")
    return Reproduction(
        request=request,
        slots=its_slots if slots is None else slots,
        precision=precision,
        perhaps_alone=precision == "fp32" and slots in (None, its_slots),
        made_by={name: rendered[name] for name in ("device", "versions") if name in rendered},
        says_source=says_source,
        remarks=tuple(remarks),
        output=output_of(file),
    )


def render(
    reproduction: Reproduction,
    model: str | None,
    inputs: Sequence[Path | str],
    settings: Settings,
    say: Callable[[str], None] = lambda _remark: None,
    *,
    controlnets: Sequence[str] = (),
    image_encoder: str | None = None,
) -> bytes:
    """The image file of a request; as its job wrote it where slots, precision, device and versions are equal.

    `model` is the folder or the single file when the request's model is one, `controlnets` are those of its
    ControlNets that are folders, `image_encoder` that of its IP-Adapter if it is one; `inputs` hold the files
    that it names, or the output that it lies in does.
    `say` gets a line for each reason why the bytes may differ.
    Raises ModelError, LatentsError, InputError, or RenderError when the picture is no picture.
    """
    request = reproduction.request
    own = [] if reproduction.output is None else [reproduction.output]
    files = inputs_of(request, inputs if inputs else own)
    further = further_of(request, controlnets, image_encoder)
    named = request.model if model is None else model
    if is_path(named):
        named = str(Path(named).expanduser().absolute())
    pipeline = Pipeline(named, request.revision, reproduction.precision, further)
    renderer, alone = _loaded(reproduction, pipeline, settings)
    here = {"device": renderer.device, "versions": renderer.versions}
    for name, then in reproduction.made_by.items():
        if then != here[name]:
            say(f"its {name}: {then}; here: {here[name]}: bytes may differ")
    if renderer.batching == "fast" and not alone:
        say(f"pictures of {pipeline.model} depend on what is rendered with them: bytes may differ")
    asked = _Wanted(request, files)
    try:
        if alone:
            picture = renderer.render_alone(request, files, lambda: False)
        else:
            picture = _painted(renderer, _bucket(reproduction, renderer, pipeline), asked)
    except (OutOfMemory, BrokenDevice) as error:
        raise RenderError(f"the device cannot render it: {error}") from error
    if not picture.finite:
        raise RenderError("the model gave non-finite values for this request")
    return encode(picture.pixels, request, says_source=reproduction.says_source)


def _loaded(reproduction: Reproduction, pipeline: Pipeline, settings: Settings) -> tuple[Renderer, bool]:
    """What renders it, and whether it is rendered alone in fp32."""
    if reproduction.perhaps_alone:
        request = reproduction.request
        # For an image alone, half-precision weights become fp32; a model loaded in fp32 has other weights.
        renderer = load_renderer(replace(pipeline, precision=request.precision), settings)
        in_fp32 = renderer.precision == "fp32"
        if reproduction.slots == renderer.slots(request):
            return renderer, not (in_fp32 and renderer.batching == "alone")
        if in_fp32:
            return renderer, False
        del renderer  # two may not fit on the device
    return load_renderer(pipeline, settings), False


def _bucket(reproduction: Reproduction, renderer: Renderer, pipeline: Pipeline) -> Bucket:
    """What it is rendered in: by itself, in slots as in its job."""
    request, fewest = reproduction.request, renderer.slots(reproduction.request)
    slots = fewest if reproduction.slots is None else max(reproduction.slots, fewest)
    mode: Literal["exact", "fast"] = "fast" if renderer.batching == "fast" else "exact"
    task = renderer.task(request)
    return Bucket(pipeline, request.height, request.width, slots, mode, task, request.adapters)


def _painted(renderer: Renderer, bucket: Bucket, wanted: _Wanted) -> Picture:
    steps = renderer.render(bucket, _One([wanted]), lambda: False)
    [(_wanted, outcome)] = chain.from_iterable(steps)
    if isinstance(outcome, ImagemillError):
        raise outcome
    return outcome


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    request: ImageRequest
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class _One:
    """A source of one image."""

    left: list[_Wanted]

    def take(self, free_slots: int) -> list[_Wanted]:
        return [self.left.pop()] if self.left else []

    def upcoming(self, count: int) -> list[_Wanted]:
        return []


def _rendered(file: Path, image_id: str) -> dict[str, Any] | None:
    """How the image was rendered, by the metadata next to it; None when that does not say."""
    try:
        lines = plain_lines(file.parent / METADATA)
        record = next(record for record in map(strict_json, lines) if record["image_id"] == image_id)
        rendered = {
            name.removeprefix(RENDERED_PREFIX): value
            for name, value in record.items()
            if name.startswith(RENDERED_PREFIX)
        }
        return (
            rendered
            | {name: str(rendered[name]) for name in ("precision", "mode")}
            | {"rows": _SLOTS[_SLOTS.index(rendered["rows"])]}
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, StopIteration):
        return None
