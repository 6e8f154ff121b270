"""Reads the JSON that a picture holds: anyone may have written it."""

from __future__ import annotations

from typing import Any

from jobs.strict_json import strict_json
from producer.importing.recipe import Untold


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises Untold for anything else."""
    try:
        value = strict_json(text)
    except ValueError:
        raise Untold("its settings are no JSON that can be read") from None
    if not isinstance(value, dict):
        raise Untold("its settings are no JSON object")
    return value
