"""What is wrong with a value in a person's words: pydantic's errors, and keys that we do not have."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import BaseModel

from jobs.bounds import must_be_multiple
from jobs.pipelines.pipelines import argument_names
from jobs.request import IMAGE_SETTINGS
from producer.manifest.document import Location
from producer.manifest.single_arguments import PREFIX, argument_named

_OTHER_WORDS: Final = {
    "steps": "num_inference_steps",
    "step": "num_inference_steps",
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
    "lora": "loras",
    "lora_dir": "lora_folder",
}
"""What neighbouring tools call our fields."""
_CLOSE: Final = 0.62
"""How much two words have in common that may be one: `class` is not meant for `loras`."""


def what_is_wrong(kind: str, path: Location, value: Any, context: Mapping[str, Any]) -> str | None:
    """What is wrong and the remedy, for one of pydantic's kinds of error; None for our own kinds."""
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
        case "int_type" if path == ("shard_size",):
            return "must be a whole number without a point, or auto"
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
            return must_be_multiple(value, context["multiple_of"])
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


def keys_around(path: Location, model: type[BaseModel]) -> dict[str, str]:
    """The keys that may stand where the unknown one at `path` stands, and how to write each from there."""
    schema = model.model_json_schema()
    settings = schema.get("$defs", {}).get("DefaultSettings", {}).get("properties", {})
    match path:
        case (_,):
            here = {name: name for name in schema["properties"]}
            return here | {name: f"settings.{name}" for name in settings if name not in here}
        case ("settings", *_):
            return {name: name for name in settings}
        case ("sweep", *_):
            return {name: name for name in schema["$defs"]["Sweep"]["properties"]}
        case ("prompts_from", *_):
            return {name: name for name in schema["$defs"]["PromptSource"]["properties"]}
        case ("controlnet", *_):
            return {name: name for name in schema["$defs"]["WrittenControlNet"]["properties"]}
        case ("ip_adapter", "image_encoder", *_):
            return {name: name for name in schema["$defs"]["WrittenImageEncoder"]["properties"]}
        case ("ip_adapter", *_):
            return {name: name for name in schema["$defs"]["WrittenIpAdapter"]["properties"]}
        case _:
            return {name: name for name in schema["$defs"]["PromptLine"]["properties"]}


def argument_form(path: Location) -> str:
    """How an argument of the pipeline's call is written where an unknown key stands, with {} for its name."""
    match path:
        case (_,) | ("controlnet" | "ip_adapter", *_):
            return "settings: {{arguments: {{{}: …}}}}"
        case ("settings", *_):
            return "arguments: {{{}: …}}"
        case _:
            return "arguments.{}"


def unknown_key(
    key: str, known: dict[str, str], argument: str = "arguments.{}", missing: Collection[str] = ()
) -> str:
    """What to say of a key that is none of `known` (key -> how to write it from there).

    `argument`: how an argument of the pipeline's call is written there. `missing`: the keys that have to
    stand there, and do not: one of them is meant rather than another.
    """
    if key in IMAGE_SETTINGS and not IMAGE_SETTINGS[key].places:
        return "is of the whole job: write it at the manifest's top"
    meant = meant_key(key, [name for name in known if name in missing]) or meant_key(key, known)
    if meant is None:
        here = [name for name, written in known.items() if name == written]
        below = "; settings of images stand below settings" if len(here) < len(known) else ""
        return f"no such key: use one of {', '.join(here)}{below}"
    single = argument_named(meant)
    return f"no such key: did you mean {known[meant] if single is None else argument.format(single)}?"


def meant_key(key: str, known: Collection[str], *, close: bool = True) -> str | None:
    """The key of `known` that another one means, or `arguments.NAME`; None when it is unclear.

    `close`: another spelling is enough, and not only another word for it.
    """
    spelled = "_".join(key.lower().replace("-", " ").split())
    meant = spelled if spelled in known else _OTHER_WORDS.get(spelled)
    if meant in known:
        return meant
    name = argument_named(key) or spelled
    if "arguments" in known and (name != spelled or name in argument_names()):
        return f"{PREFIX}{name}"
    nearest = difflib.get_close_matches(spelled, known, 1, _CLOSE) if close else []
    return nearest[0] if nearest else None
