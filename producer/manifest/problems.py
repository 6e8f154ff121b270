"""pydantic's errors told as a person would: place, field, value, what is wrong, and the remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from jobs.wording import printable, shortened
from producer.manifest.yaml_marks import REFUSED, Document, Location, Problem, dotted

MAX_TOLD: Final = 20

_OTHER_WORDS: Final = {
    "steps": "num_inference_steps",
    "sample_steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
    "negative": "negative_prompt",
    "n": "images_per_prompt",
    "n_iter": "images_per_prompt",
    "num_images": "images_per_prompt",
    "num_images_per_prompt": "images_per_prompt",
    "batch_size": "images_per_prompt",
    "format": "image_format",
    "quality": "image_quality",
    "dtype": "precision",
    "out": "output",
    "output_dir": "output",
    "latents": "init_latents",
    "img_latents": "init_latents",
    "text": "prompt",
    "caption": "prompt",
    "metadata": "columns",
    "commit": "revision",
}
"""What neighbouring tools call our fields."""


def report(name: str, problems: Iterable[Problem]) -> str:
    """`FILE:LINE:COLUMN: …`, one problem a line, by place; beyond the 20th only their number."""
    ordered = sorted(set(problems))
    lines = [
        f"{name}:{problem.line}:{problem.column}: {printable(problem.text)}"
        if problem.line
        else f"{name}: {printable(problem.text)}"
        for problem in ordered[:MAX_TOLD]
    ]
    if len(ordered) > MAX_TOLD:
        lines.append(f"{name}: and {len(ordered) - MAX_TOLD} more")
    return "\n".join(lines)


def problems_of(error: ValidationError, document: Document | None, model: type[BaseModel]) -> list[Problem]:
    """Every error with its place in `document` (line 0 without one), but for values refused already."""
    problems = []
    for one in error.errors(include_url=False):
        if one["input"] is REFUSED or (one["type"] == "too_short" and one["input"]):
            continue  # pydantic counts valid elements only: a list whose elements are all wrong is not short.
        context = one.get("ctx", {})
        path = as_written(one["loc"], document)
        if "below" in context:
            path = (*path, context["below"])
        elif "at" in context:
            path = (*path[:-1], *context["at"])
        kind = one["type"]
        of_key = kind == "extra_forbidden" or "below" in context or len(context.get("at", ())) > 1
        place = (0, 0) if document is None else document.place(path, of_key=of_key)
        if kind == "extra_forbidden":
            what = unknown_key(str(path[-1]), _fields_around(path, model))
        else:
            what = _what(kind, path, one["input"], context) or one["msg"]
        shown = dotted(path)
        if kind not in ("missing", "extra_forbidden", "column") and not of_key:
            shown += f" = {_written(path, one['input'], document)}"
        problems.append(Problem(*place, f"{shown}: {what}"))
    return problems


def as_written(location: tuple[str | int, ...], document: Document | None) -> Location:
    """pydantic's location as the file has it: without the branch of the union that it went through, and
    without the list and the mapping that a file's bare name stands for."""
    if len(location) > 2 and location[0] == "prompts" and location[2] in ("text", "mapping"):
        return location[:2] + location[3:]
    if location[:1] != ("prompts_from",) or document is None:
        return location
    path: Location = ("prompts_from",)
    for step in location[1:]:
        node = document.find(path)
        below = node.children if node is not None else None
        if not (isinstance(step, int) and not isinstance(below, list)) and not (
            step == "file" and below is None
        ):
            path = (*path, step)
    return path


def _written(path: Location, value: Any, document: Document | None) -> str:
    """The value as the file has it, on one line."""
    node = None if document is None else document.find(path)
    if node is not None and node.text is not None:
        return shortened(node.text or "(nothing)")
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "a mapping"
    return shortened(json.dumps(value, ensure_ascii=True, default=repr))


def _what(kind: str, path: Location, value: Any, context: Mapping[str, Any]) -> str | None:
    """What is wrong and the remedy, for one of pydantic's kinds of errors; None for our own kinds."""
    match kind:
        case "missing":
            return "is missing: add it"
        case "string_type" if isinstance(value, (list, dict)):
            return "must be text"
        case "string_type" if value is None:
            return 'must be text: write "" for an empty one'
        case "string_type":
            return "must be text: write it in quotes"
        case "string_unicode":
            return "holds half of a surrogate pair: remove it"
        case "string_pattern_mismatch" if path == ("name",):
            return (
                'must be 1 to 64 of a-z, 0-9, ".", "_" and "-", begin with a letter or digit'
                " and not end with a dot"
            )
        case "string_pattern_mismatch":
            return "holds the character NUL: remove it"
        case "int_type" if isinstance(value, str):
            return "must be a whole number, without quotes"
        case "int_type":
            return "must be a whole number, without a point"
        case "float_type":
            return "must be a number, without quotes"
        case "finite_number":
            return "must be finite"
        case "greater_than_equal":
            return f"must be at least {_plain(context['ge'])}"
        case "less_than_equal":
            return f"must be at most {_plain(context['le'])}"
        case "multiple_of":
            return _multiple_of(value, context["multiple_of"])
        case "literal_error":
            return f"must be {context['expected'].replace(chr(39), '')}"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "list_type" | "tuple_type":
            return "must be a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must be a mapping"
    return None


def _plain(number: float) -> str:
    if number == 2**63 - 1:
        return "2**63-1"
    return f"{number:g}" if isinstance(number, float) else str(number)


def _multiple_of(value: int, step: int) -> str:
    lower = value // step * step
    near = f"{lower} or {lower + step}" if lower > 0 else str(step)
    return f"must be a multiple of {step} ({near})"


def _fields_around(path: Location, model: type[BaseModel]) -> dict[str, str]:
    """The keys that may stand where the unknown one at `path` stands, and how to write each from there."""
    schema = model.model_json_schema()
    settings = schema.get("$defs", {}).get("DefaultSettings", {}).get("properties", {})
    match path:
        case (_,):
            return {name: f"settings.{name}" for name in settings} | {
                name: name for name in schema["properties"]
            }
        case ("settings", *_):
            return {name: name for name in settings}
        case ("sweep", *_):
            return {name: name for name in schema["$defs"]["Sweep"]["properties"]}
        case ("prompts_from", *_):
            return {name: name for name in schema["$defs"]["PromptSource"]["properties"]}
        case _:
            return {name: name for name in schema["$defs"]["PromptLine"]["properties"]}


def unknown_key(key: str, known: dict[str, str]) -> str:
    """What to say of a key that is none of `known` (key -> how to write it from there)."""
    spelled = key.lower().replace("-", "_")
    meant = _OTHER_WORDS.get(spelled)
    if meant not in known:
        close = difflib.get_close_matches(spelled, known, 1)
        meant = close[0] if close else None
    if meant is None:
        return f"no such key: use one of {', '.join(known.values())}"
    return f"no such key: did you mean {known[meant]}?"
