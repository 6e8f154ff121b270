"""Reads JSON that anyone may have written: a file in an output, a message, an argument."""

from __future__ import annotations

import json
from typing import Any, Final

_COUNTED_FROM: Final = 4 << 20
_MOST_BRACKETS: Final = 8_000_000
"""An empty object is two characters, and takes 64 bytes; a million prompts of a manifest have three each."""


def strict_json(text: str | bytes) -> Any:
    """The JSON value in `text`; bytes are UTF-8, UTF-16 or UTF-32.

    Raises ValueError for any other text. `json.loads` alone raises RecursionError for deep nesting, and a
    caller that forgets it ends with a traceback.
    """
    if len(text) > _COUNTED_FROM:
        brackets = [b"[", b"{"] if isinstance(text, bytes) else ["[", "{"]
        if sum(map(text.count, brackets)) > _MOST_BRACKETS:  # type: ignore[arg-type]
            raise ValueError(f"more than {_MOST_BRACKETS:,} lists and objects")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
