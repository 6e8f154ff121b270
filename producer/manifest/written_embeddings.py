"""Textual inversions as a manifest writes them: files, each with the token that prompts call it by.

A list is held as canonical JSON, so that equal lists are equal texts:
`[{"file":"toys/cat.safetensors","token":"<cat-toy>"}]`. What a request holds, hashes, is made of it by
`producer.manifest.embedding_files`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from jobs.bounds import Column, plain_text
from jobs.errors import ManifestError
from jobs.strict_json import strict_json
from jobs.wording import shortened

MOST_EMBEDDINGS: Final = 64
"""Of one image: each is looked for in its texts."""
_KEYS: Final = ("file", "token")


@dataclass(frozen=True, slots=True)
class WrittenEmbedding:
    """One textual inversion of a list."""

    file: str
    """A path: relative to the manifest as it is written, absolute once it was read."""
    token: str
    """What prompts call it; the file's name without its suffix where none was given."""


def written_embeddings(text: str) -> tuple[WrittenEmbedding, ...]:
    """The embeddings of a canonical text, in their order."""
    return tuple(WrittenEmbedding(**one) for one in json.loads(text))


def embeddings_text(embeddings: tuple[WrittenEmbedding, ...]) -> str:
    """The canonical text of such a list."""
    return json.dumps([asdict(one) for one in embeddings], ensure_ascii=False, separators=(",", ":"))


def with_embedding_files(text: str, renamed: Callable[[str], str]) -> str:
    """The list with other paths of its files. A text that is no such list stays, and is refused elsewhere."""
    try:
        embeddings = written_embeddings(text)
    except (ValueError, TypeError):
        return text
    return embeddings_text(tuple(WrittenEmbedding(renamed(one.file), one.token) for one in embeddings))


@dataclass(frozen=True, slots=True)
class WrittenEmbeddings:
    """Lists of textual inversions as a manifest or a row writes them."""

    column: ClassVar[Column] = "string"
    words: ClassVar[str] = "a list of textual inversions, each a file or {file, token}"

    @property
    def annotation(self) -> Any:
        from pydantic import BeforeValidator, WithJsonSchema

        return Annotated[str, BeforeValidator(_canonical), WithJsonSchema(_SCHEMA)]

    def plain(self, value: Any) -> str | None:
        try:
            return canonical_embeddings(value)
        except ValueError:
            return None

    def of_text(self, text: str) -> str:
        try:
            return canonical_embeddings(text)
        except ValueError as error:
            raise ManifestError(str(error)) from None


def canonical_embeddings(value: object) -> str:
    """The canonical text of a list of textual inversions: a list, its JSON, or names of files with commas.

    Raises ValueError that says what is wrong, and the remedy.
    """
    # For manifests that name some.
    from jobs.adapter_files.embedding_file import tokens_trouble

    listed = _of_text(value) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)):
        raise ValueError(f"must be {WrittenEmbeddings.words}")
    if len(listed) > MOST_EMBEDDINGS:
        raise ValueError(f"holds {len(listed)} embeddings, and there may be {MOST_EMBEDDINGS}: remove some")
    embeddings = []
    for number, one in enumerate(listed):
        try:
            embeddings.append(_given(one))
        except ValueError as error:
            raise ValueError(f"number {number + 1} {error}") from None
    trouble = tokens_trouble([one.token for one in embeddings])
    if trouble is not None:
        raise ValueError(trouble)
    return embeddings_text(tuple(embeddings))


def _of_text(text: str) -> object:
    if text.lstrip().startswith("["):
        try:
            return strict_json(text)
        except (ValueError, RecursionError):
            raise ValueError(
                'is no JSON: write [{"file": "cat.safetensors", "token": "<cat-toy>"}]'
            ) from None
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _given(one: object) -> WrittenEmbedding:
    from jobs.adapter_files.embedding_file import default_token, token_trouble

    given = {"file": one} if isinstance(one, str) else one
    if not isinstance(given, dict):
        raise ValueError("must be a file, or a mapping {file, token}")
    unknown = next((key for key in given if key not in _KEYS), None)
    if unknown is not None:
        raise ValueError(f"has a key {unknown}: use file and token")
    file = plain_text(given.get("file"))
    if not file:
        raise ValueError("names no `file`: add it")
    token = default_token(Path(file)) if given.get("token") is None else plain_text(given["token"])
    if token is None:
        raise ValueError("has a token that is no text: write it in quotes")
    trouble = token_trouble(token)
    if trouble is not None:
        raise ValueError(f"has a token {shortened(token)} that {trouble}")
    return WrittenEmbedding(file, token)


def _canonical(value: object) -> str:
    from pydantic_core import PydanticCustomError

    try:
        return canonical_embeddings(value)
    except ValueError as error:
        raise PydanticCustomError("textual_inversions", "{what}", {"what": str(error)}) from None


_ONE: Final = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: {"type": "string", "minLength": 1} for key in _KEYS},
            "required": ["file"],
        },
    ]
}
_SCHEMA: Final = {
    "anyOf": [{"type": "array", "items": _ONE, "maxItems": MOST_EMBEDDINGS}, {"type": "string"}]
}
