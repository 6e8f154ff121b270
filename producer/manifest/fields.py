"""The fields of a manifest as types: what each takes, and what is said of the rest."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from jobs.bounds import COUNTS, LEAST_GUIDANCE, MOST_GUIDANCE, SEEDS, SIDES, STEPS
from jobs.errors import ManifestError
from jobs.models import name_trouble
from jobs.schedulers import SCHEDULERS, find_scheduler

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
