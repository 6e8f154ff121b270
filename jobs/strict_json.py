"""Reads JSON that anyone may have written: a file in an output, a message, an argument."""

from __future__ import annotations

import json
from typing import Any


def strict_json(text: str | bytes) -> Any:
    """The JSON value in `text`; bytes are UTF-8, UTF-16 or UTF-32.

    Raises ValueError for any other text. `json.loads` alone raises RecursionError for deep nesting, and a
    caller that forgets it ends with a traceback.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
