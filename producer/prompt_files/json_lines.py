"""Prompts in .jsonl: a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.errors import ManifestError
from producer.manifest.text_lines import Record, text_lines


def records(file: Path) -> Iterator[Record]:
    """Each line's object; blank lines are ignored."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    for number, text in text_lines(file):
        if isinstance(text, ManifestError):
            yield number, text
            continue
        try:
            # `decode` looks for blanks around the object, which takes as long as all the rest.
            values, end = decoder.raw_decode(text) if text.startswith("{") else (None, -1)
            if end != len(text):
                values = decoder.decode(text)
        except json.JSONDecodeError as error:
            if text.strip():
                yield number, ManifestError(f"not JSON at column {error.colno}: {error.msg}")
            continue
        except (ManifestError, ValueError) as error:
            yield number, ManifestError(str(error))
            continue
        except RecursionError:
            yield number, ManifestError("not JSON: lists or objects are nested too deeply")
            continue
        if not isinstance(values, dict):
            values = ManifestError('must be an object: {"prompt": "…"}')
        yield number, values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = [name for name, _ in pairs]
        twice = next(name for name in seen if seen.count(name) > 1)
        raise ManifestError(f"{twice}: the key occurs twice: remove one")
    return values
