"""The fields of a manifest as types: what each takes, and what is said of the rest."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from jobs.bounds import COUNTS, QUALITIES, SEEDS
from jobs.models.models import name_trouble

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MAX_RETENTION = 3650 * 86400


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
Quality = Annotated[int, Field(ge=QUALITIES[0], le=QUALITIES[-1])]
Seed = Annotated[int, Field(ge=SEEDS[0], le=SEEDS[-1])]
Count = Annotated[int, Field(ge=COUNTS[0], le=COUNTS[-1])]
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
