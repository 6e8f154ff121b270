"""Prompts in .jsonl: a JSON object a line, or a text that is a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.errors import ManifestError
from producer.manifest.prompt_source import PromptSource
from producer.manifest.text_lines import Record, text_lines


def records(file: Path, source: PromptSource) -> Iterator[Record]:
    """Each line's object; blank lines are ignored."""
    decoder = strict_decoder()
    for number, text in text_lines(file, source):
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
        yield number, values if isinstance(values, dict) else of_bare_value(values, source.fields)


def strict_decoder() -> json.JSONDecoder:
    """A decoder that raises ManifestError for an object with the same key twice."""
    return json.JSONDecoder(object_pairs_hook=_object)


def of_bare_value(value: object, fields: Mapping[str, str]) -> dict[str, Any] | ManifestError:
    """The row that a value stands for which is no object: a text is a prompt."""
    if not isinstance(value, str):
        return ManifestError('must be an object or a text: {"prompt": "…"}')
    if "prompt" in fields:
        return ManifestError(
            f"is a text, and `fields` calls the prompt {fields['prompt']}: remove it from `fields`"
        )
    return {"prompt": value}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = [name for name, _ in pairs]
        twice = next(name for name in seen if seen.count(name) > 1)
        raise ManifestError(f"{twice}: the key occurs twice: remove one")
    return values
