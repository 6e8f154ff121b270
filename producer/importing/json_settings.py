"""Programs that write their settings as one JSON object, each under names of its own.

SwarmUI: `parameters` with `sui_image_params` (its `T2IParamTypes.cs`). Fooocus: `parameters` beside
`fooocus_scheme: fooocus` (`meta_parser.py`). NovelAI: `Comment` beside `Software: NovelAI`. Draw Things: the
user comment in XMP. What these say beyond the settings below is named, each key alone.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.wording import shortened
from producer.importing.json_text import json_object
from producer.importing.recipe import NO_EQUAL, Draft, NamedModel

_NOTHING: Final[tuple[object, ...]] = (None, "", False, 0, [], {}, "None", "none")
_RDF: Final = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True, slots=True)
class Names:
    """What a program calls our settings."""

    program: str
    settings: Mapping[str, str]
    """Its key -> the setting."""
    prompt: str = "prompt"
    negative_prompt: str = "negative_prompt"
    sampler: str = "sampler"
    schedule: str = "scheduler"
    model: str = "model"
    model_hash: str = "model_hash"
    silent: frozenset[str] = frozenset()
    """Keys that change no pixel."""
    usual: Mapping[str, object] = field(default_factory=dict)
    """Values that change no pixel."""


SWARMUI: Final = Names(
    "SwarmUI",
    {
        "steps": "num_inference_steps",
        "cfgscale": "guidance_scale",
        "seed": "seed",
        "width": "width",
        "height": "height",
    },
    negative_prompt="negativeprompt",
    silent=frozenset(
        {"images", "aspectratio", "swarm_version", "date", "generation_time", "automaticvae", "personalnote"}
    ),
)
FOOOCUS: Final = Names(
    "Fooocus",
    {"steps": "num_inference_steps", "guidance_scale": "guidance_scale", "seed": "seed"},
    model="base_model",
    model_hash="base_model_hash",
    silent=frozenset(
        {"version", "created_by", "metadata_scheme", "full_prompt", "full_negative_prompt", "resolution"}
    ),
    usual={"clip_skip": 1, "refiner_switch": 0.5},
)
NOVELAI: Final = Names(
    "NovelAI",
    {
        "steps": "num_inference_steps",
        "scale": "guidance_scale",
        "seed": "seed",
        "width": "width",
        "height": "height",
    },
    negative_prompt="uc",
    schedule="noise_schedule",
    silent=frozenset(
        {"signed_hash", "request_type", "version", "params_version", "legacy", "legacy_uc", "n_samples"}
    ),
    usual={"strength": 0, "uncond_scale": 1, "controlnet_strength": 1},
)
DRAW_THINGS: Final = Names(
    "Draw Things",
    {"steps": "num_inference_steps", "scale": "guidance_scale", "seed": "seed"},
    prompt="c",
    negative_prompt="uc",
    schedule="",
    silent=frozenset({"v2", "profile", "size"}),
    usual={"strength": 1, "shift": 1, "seed_mode": "Scale Alike"},
)


def read_settings(said: Mapping[str, Any], names: Names) -> Draft:
    """What a program's object says. Raises Untold where it holds no prompt."""
    draft = Draft(names.program)
    draft.take_texts(said.get(names.prompt), said.get(names.negative_prompt))
    for key, name in names.settings.items():
        value = said.get(key)
        draft.take(name, value if type(value) in (int, float, str) else None, key)
    draft.take_sampler(said.get(names.sampler), said.get(names.schedule))
    draft.model = NamedModel(_text(said, names.model), _text(said, names.model_hash))
    known = {
        *names.settings, *names.silent, names.prompt, names.negative_prompt, names.sampler, names.schedule,
        names.model, names.model_hash,
    }  # fmt: skip
    for key, value in said.items():
        if key not in known and value not in _NOTHING and names.usual.get(key) != value:
            draft.lose(f"{shortened(key)}: {shortened(str(value))}", NO_EQUAL)
    return draft


def read_swarmui(said: Mapping[str, Any]) -> Draft:
    """SwarmUI's object `sui_image_params`."""
    return read_settings(said, SWARMUI)


def read_fooocus(said: Mapping[str, Any]) -> Draft:
    """Fooocus' own scheme, whose size is a text: `(896, 1152)`."""
    draft = read_settings(said, FOOOCUS)
    width, _, height = _text(said, "resolution").strip("()").partition(",")
    draft.take("width", width.strip(), "resolution")
    draft.take("height", height.strip(), "resolution")
    full = said.get("full_prompt")
    if isinstance(full, list) and full != [draft.prompt]:
        draft.lose(
            "full_prompt", "Fooocus wrote more into the prompt by its styles: only your own words are here"
        )
    return draft


def read_novelai(texts: Mapping[str, str]) -> Draft:
    """NovelAI's object, whose prompt may stand in `Description` alone."""
    said = json_object(texts["Comment"])
    return read_settings({"prompt": texts.get("Description"), "model": texts.get("Source"), **said}, NOVELAI)


def read_draw_things(text: str) -> Draft:
    """The object in Draw Things' user comment, whose size is a text: `512x768`."""
    said = json_object(text)
    draft = read_settings(said, DRAW_THINGS)
    width, _, height = _text(said, "size").partition("x")
    draft.take("width", width, "size")
    draft.take("height", height, "size")
    return draft


def draw_things_text(xmp: str) -> str | None:
    """The JSON in the user comment of an XMP packet; None where there is none."""
    # A document type could define entities that unfold to gigabytes.
    if "UserComment" not in xmp or "<!DOCTYPE" in xmp:
        return None
    try:
        elements = [one for one in ET.fromstring(xmp).iter() if one.tag.endswith("}UserComment")]
    except (ET.ParseError, LookupError, ValueError):
        return None
    for one in elements:
        item = one.find(f".//{_RDF}li")
        text = (one.text if item is None else item.text) or ""
        if text.strip().startswith("{"):
            return text
    return None


def _text(said: Mapping[str, Any], key: str) -> str:
    value = said.get(key)
    return value if isinstance(value, str) else ""
