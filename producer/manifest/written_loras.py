"""LoRAs as a manifest writes them: files, names in `lora_folder`, files of the hub, each with its scale.

A list is held as canonical JSON, as `arguments` are, so that equal lists are equal texts:
`[{"file":"styles/ink.safetensors","scale":0.8}]`. What a request holds, names and hashes, is made of it by
`producer.manifest.lora_files`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from jobs.adapters import MOST_SCALE
from jobs.bounds import Column, Decimal, plain_text
from jobs.errors import ManifestError
from jobs.model_files.safetensors_header import SUFFIX
from jobs.models.models import is_path
from jobs.strict_json import strict_json
from jobs.wording import shortened

MOST_LORAS: Final = 16
"""Of one image: each adds two small products to every layer."""
_KEYS: Final = ("file", "name", "model", "weight_name", "revision", "scale")
_NAMES: Final = ("file", "name", "model")
_SCALE = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")


@dataclass(frozen=True, slots=True)
class WrittenLora:
    """One LoRA of a list; one of `file`, `name` and `model` is given."""

    file: str | None = None
    """A path: relative to the manifest as it is written, absolute once it was read."""
    name: str | None = None
    """The name of a file in `lora_folder`, without its suffix."""
    model: str | None = None
    """A hub repository or a folder, in which `weight_name` lies."""
    weight_name: str | None = None
    revision: str | None = None
    scale: float = 1.0

    def __str__(self) -> str:
        return self.file or self.name or f"{self.model}/{self.weight_name}"

    def to_mapping(self) -> dict[str, Any]:
        """What was given of it, and its scale."""
        given = {key: getattr(self, key) for key in _KEYS}
        return {key: value for key, value in given.items() if value is not None}


def written_loras(text: str) -> tuple[WrittenLora, ...]:
    """The LoRAs of a canonical text, in their order."""
    return tuple(WrittenLora(**one) for one in json.loads(text))


def loras_text(loras: tuple[WrittenLora, ...]) -> str:
    """The canonical text of such a list."""
    return json.dumps([one.to_mapping() for one in loras], ensure_ascii=False, separators=(",", ":"))


def with_lora_files(text: str, renamed: Callable[[str], str]) -> str:
    """The list with other paths of its files, and of folders in which they lie. A text that is no list of
    LoRAs stays, and is refused elsewhere."""
    try:
        loras = written_loras(text)
    except (ValueError, TypeError):
        return text
    return loras_text(
        tuple(
            WrittenLora(
                **one.to_mapping()
                | ({} if one.file is None else {"file": renamed(one.file)})
                | ({} if one.model is None else {"model": _renamed_model(one.model, renamed)})
            )
            for one in loras
        )
    )


def _renamed_model(model: str, renamed: Callable[[str], str]) -> str:
    """Another path of a folder, which still says that it is one; a hub repository stays."""
    if not is_path(model):
        return model
    path = renamed(model.removeprefix("./"))
    return path if is_path(path) else f"./{path}"


@dataclass(frozen=True, slots=True)
class WrittenLoras:
    """Lists of LoRAs as a manifest or a row writes them; a right one means its canonical text."""

    column: ClassVar[Column] = "string"
    words: ClassVar[str] = (
        "a list of LoRAs, each {file, scale}, {model, weight_name, scale} or, in lora_folder, NAME:SCALE"
    )

    @property
    def annotation(self) -> Any:
        from pydantic import BeforeValidator, WithJsonSchema

        return Annotated[str, BeforeValidator(_canonical), WithJsonSchema(_SCHEMA)]

    def plain(self, value: Any) -> str | None:
        try:
            return canonical_loras(value)
        except ValueError:
            return None

    def of_text(self, text: str) -> str:
        try:
            return canonical_loras(text)
        except ValueError as error:
            raise ManifestError(str(error)) from None


def canonical_loras(value: object) -> str:
    """The canonical text of a list of LoRAs: a list, its JSON, or `ink:0.8, grain`, names in `lora_folder`.

    Raises ValueError that says what is wrong, and the remedy.
    """
    listed = value
    if isinstance(value, str):
        listed = _of_text(value)
    if not isinstance(listed, (list, tuple)):
        raise ValueError(f"must be {WrittenLoras.words}")
    if len(listed) > MOST_LORAS:
        raise ValueError(f"holds {len(listed)} LoRAs, and there may be {MOST_LORAS}: remove some")
    loras = []
    for number, one in enumerate(listed):
        try:
            loras.append(_named(one) if isinstance(one, str) else _given(one))
        except ValueError as error:
            raise ValueError(f"number {number + 1} {error}") from None
    return loras_text(tuple(loras))


def _of_text(text: str) -> object:
    if text.lstrip().startswith("["):
        try:
            return strict_json(text)
        except (ValueError, RecursionError):
            raise ValueError('is no JSON: write [{"file": "ink.safetensors", "scale": 0.8}]') from None
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _named(text: str) -> WrittenLora:
    """`ink:0.8`, a name in `lora_folder`, or a file."""
    name, colon, scale = text.rpartition(":")
    if not colon:
        name, scale = text, "1"
    elif _SCALE.fullmatch(scale.strip()) is None:
        raise ValueError(f"= {shortened(text)}: what follows the colon must be its scale, as in ink:0.8")
    name = _text("name", name.strip())
    if name.endswith(SUFFIX) or is_path(name):
        return WrittenLora(file=name, scale=_scale(float(scale)))
    return WrittenLora(name=name, scale=_scale(float(scale)))


def _given(one: object) -> WrittenLora:
    if not isinstance(one, dict):
        raise ValueError("must be a mapping {file, scale}, or text")
    unknown = next((key for key in one if key not in _KEYS), None)
    if unknown is not None:
        raise ValueError(f"has a key {unknown}: use {', '.join(_KEYS)}")
    named = [key for key in _NAMES if one.get(key) is not None]
    if len(named) != 1:
        raise ValueError("needs one of file, name (in lora_folder) and model (with weight_name)")
    given = {key: _text(key, one[key]) for key in _KEYS[:-1] if one.get(key) is not None}
    for key in ("weight_name", "revision"):
        if key in given and "model" not in given:
            raise ValueError(f"has a {key} without `model`: remove it")
    if "model" in given and "weight_name" not in given:
        raise ValueError("needs `weight_name`, the file in its `model`")
    return WrittenLora(**given, scale=_scale(one.get("scale", 1.0)))


def _text(key: str, value: object) -> str:
    text = plain_text(value)
    if not text:
        raise ValueError(f"has a {key} that is no text: write it in quotes")
    return text


def _scale(value: object) -> float:
    scale = Decimal(-MOST_SCALE, MOST_SCALE)
    plain = scale.plain(value)
    if plain is None:
        raise ValueError(f"has scale = {value}: it must be {scale.words}")
    return plain


def _canonical(value: object) -> str:
    from pydantic_core import PydanticCustomError

    try:
        return canonical_loras(value)
    except ValueError as error:
        raise PydanticCustomError("loras", "{what}", {"what": str(error)}) from None


_ONE: Final = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                **{key: {"type": "string", "minLength": 1} for key in _KEYS[:-1]},
                "scale": {"type": "number", "minimum": -MOST_SCALE, "maximum": MOST_SCALE},
            },
        },
    ]
}
_SCHEMA: Final = {"anyOf": [{"type": "array", "items": _ONE, "maxItems": MOST_LORAS}, {"type": "string"}]}
