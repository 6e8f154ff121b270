"""The fields of a manifest as types: what each takes, and what is said of the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticCustomError

from jobs.errors import ManifestError
from jobs.metadata import column_problem
from jobs.models import name_trouble
from jobs.schedulers import SCHEDULERS, find_scheduler

MAX_SEED: Final = 2**63 - 1

# The numbers that a setting may have: pydantic's types below and the rows of prompt files both ask these.
SIDES: Final = range(8, 8192 + 8, 8)
STEPS: Final = range(1, 1000 + 1)
SEEDS: Final = range(MAX_SEED + 1)
COUNTS: Final = range(1, 1_000_000 + 1)
LEAST_GUIDANCE: Final = 1.0
MOST_GUIDANCE: Final = 100.0

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MAX_RETENTION = 3650 * 86400


def _canonical_scheduler(name: str) -> str:
    try:
        return find_scheduler(name).name
    except ManifestError as error:
        raise PydanticCustomError("scheduler", "{what}", {"what": str(error)}) from None


def _known_form(model: str) -> str:
    trouble = name_trouble(model)
    if trouble is not None:
        raise PydanticCustomError("model", "{what}", {"what": trouble})
    return model


def _retention_seconds(value: object) -> object:
    """Seconds of `"7d"` or of a number of seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"([1-9][0-9]{0,9})([smhdw])", value)
        if match is None:
            raise PydanticCustomError("retention", 'must be like "7d", "12h" or a number of seconds')
        return int(match[1]) * _UNITS[match[2]]
    return value


def _latents_name(name: str) -> str:
    if not name.endswith((".npy", ".safetensors")):
        raise PydanticCustomError("latents", "must name a .npy or .safetensors file")
    return name


def _storable(value: JsonValue) -> str | None:
    """Why a column's value cannot be kept as JSON in a table; None when it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return "must be finite: JSON has no inf or nan; use null"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "must fit in 64 bits: write it in quotes"
    if isinstance(value, str):
        if "\x00" in value:
            return "must not hold the character NUL: remove it"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "must not hold half of a surrogate pair: remove it"
    below: Iterator[JsonValue] = iter(())
    if isinstance(value, list):
        below = iter(value)
    elif isinstance(value, dict):
        below = (part for item in value.items() for part in item)
    return next((trouble for part in below if (trouble := _storable(part)) is not None), None)


def deeper_than(depth: int, value: object) -> bool:
    """Whether lists and mappings in `value` are nested deeper. No recursion: it is asked before others do."""
    level = [value]
    for _ in range(depth):
        around = [one for one in level if isinstance(one, (list, dict))]
        level = [part for one in around for part in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, (list, dict)) for one in level)


def column_trouble(name: str, value: JsonValue) -> str | None:
    """Why a user's column cannot stand in the metadata, with the remedy; None when it can."""
    if name == "":
        return "has no name: give it one"
    problem = column_problem(name)
    if problem is not None:
        return f"{problem}: choose another"
    return _storable(name) or _storable(value)


ModelName = Annotated[str, AfterValidator(_known_form)]
LatentsFile = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$"), AfterValidator(_latents_name)]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
PathText = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Revision = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Precision = Literal["auto", "bf16", "fp16", "amp", "fp32"]
ImageFormat = Literal["png", "jpeg", "webp"]
Quality = Annotated[int, Field(ge=1, le=100)]
Side = Annotated[int, Field(ge=SIDES[0], le=SIDES[-1], multiple_of=SIDES.step)]
Steps = Annotated[int, Field(ge=STEPS[0], le=STEPS[-1])]
Guidance = Annotated[float, Field(ge=LEAST_GUIDANCE, le=MOST_GUIDANCE, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=SEEDS[0], le=SEEDS[-1])]
Count = Annotated[int, Field(ge=COUNTS[0], le=COUNTS[-1])]
SchedulerName = Annotated[
    str,
    AfterValidator(_canonical_scheduler),
    WithJsonSchema({"anyOf": [{"enum": [scheduler.name for scheduler in SCHEDULERS]}, {"type": "string"}]}),
]
Retention = Annotated[
    int,
    Field(ge=1, le=_MAX_RETENTION),
    BeforeValidator(_retention_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": _MAX_RETENTION},
                {"type": "string", "pattern": "^[1-9][0-9]{0,9}[smhdw]$"},
            ]
        }
    ),
]
