"""Reads JSON that anyone may have written: a file in an output, a message, an argument."""

from __future__ import annotations

import json
from typing import Any, Final

_COUNTED_FROM: Final = 4 << 20
_MOST_PARTS: Final = 8_000_000
"""Lists, objects, and texts in them: an empty object is two characters, and takes 64 bytes. A million prompts
of a manifest have six each."""


def strict_json(text: str | bytes) -> Any:
    """The JSON value in `text`; bytes are UTF-8, UTF-16 or UTF-32.

    Raises ValueError for any other text. `json.loads` alone raises RecursionError for deep nesting, and a
    caller that forgets it ends with a traceback.
    """
    if len(text) > _COUNTED_FROM:
        # In a text a quotation mark is escaped: a comma before one separates parts.
        marks: tuple[Any, ...] = (b"[", b"{", b',"') if isinstance(text, bytes) else ("[", "{", ',"')
        if sum(map(text.count, marks)) > _MOST_PARTS:
            raise ValueError(f"it holds more than {_MOST_PARTS:,} lists, objects and texts")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
