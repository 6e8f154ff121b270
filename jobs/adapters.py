"""What changes a model for some images: LoRAs, embeddings, IP-Adapters, ControlNets, each by its contents.

A request holds them as the canonical JSON of a list, so that equal lists are equal texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final

from jobs.bounds import Column, Decimal, Sha256, Text, Values
from jobs.errors import ManifestError, RenderError
from jobs.strict_json import strict_json

NONE: Final = "[]"
"""The canonical text of no adapters."""
MOST_SCALE: Final = 10.0
"""Of an adapter, either sign; what is used in practice stays between -2 and 2."""
_NAME, _ENCODER = "name", "image_encoder"
_FOR_PEOPLE: Final = frozenset({_NAME, _ENCODER})
"""The keys that are names: two adapters that differ in them alone are the same one."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Lists of objects that all have the same keys; a right one means its canonical text."""

    what: str
    """What is listed, in the plural: `LoRAs`."""
    keys: Mapping[str, Values]
    """Every key and its values, in their order."""
    usual: Mapping[str, Any]
    """What keys mean that are left out."""
    column: ClassVar[Column] = "string"

    @property
    def words(self) -> str:
        """Which values are right, for people."""
        return f"a list of {self.what}, each with {', '.join(self.keys)}"

    @property
    def annotation(self) -> Any:
        """The type of a canonical text."""
        return Text().annotation

    def plain(self, value: Any) -> str | None:
        """The canonical text of a right list, or of a right list's JSON."""
        try:
            listed = strict_json(value) if type(value) is str else value
        except (ValueError, RecursionError):
            return None
        if type(listed) not in (list, tuple):
            return None
        one_each = [self._plain_object(one) for one in listed]
        return None if None in one_each else _text(one_each)

    def of_text(self, text: str) -> str:
        """The canonical text. Raises ManifestError."""
        meant = self.plain(text)
        if meant is None:
            raise ManifestError(f"must be {self.words}, as JSON")
        return meant

    def identified(self, text: str) -> str:
        """The canonical text without what is for people alone: what image_ids follow from."""
        return nameless(text)

    def _plain_object(self, one: Any) -> dict[str, Any] | None:
        if type(one) is not dict or not one.keys() <= self.keys.keys():
            return None
        full = {**self.usual, **one}
        meant = {key: values.plain(full[key]) for key, values in self.keys.items() if key in full}
        return None if len(meant) < len(self.keys) or None in meant.values() else meant


@lru_cache(1024)
def nameless(text: str) -> str:
    """The canonical text of a list without the names in it."""
    return _text([{key: one[key] for key in one if key not in _FOR_PEOPLE} for one in json.loads(text)])


LORAS: Final = Listed(
    "LoRAs",
    {_NAME: Text(empty=False), "sha256": Sha256(), "scale": Decimal(-MOST_SCALE, MOST_SCALE)},
    {"scale": 1.0},
)
TEXTUAL_INVERSIONS: Final = Listed(
    "embeddings", {_NAME: Text(empty=False), "token": Text(empty=False), "sha256": Sha256()}, {}
)
IP_ADAPTERS: Final = Listed(
    "IP-Adapters",
    {
        _NAME: Text(empty=False),
        "sha256": Sha256(),
        _ENCODER: Text(empty=False),
        "revision": Text(empty=False),
    },
    {},
)
CONTROLNETS: Final = Listed(
    "ControlNets",
    {_NAME: Text(empty=False), "revision": Text(empty=False), "scale": Decimal(0.0, MOST_SCALE)},
    {"scale": 1.0},
)


@dataclass(frozen=True, slots=True, eq=False)
class Adapters:
    """What a denoiser and its text encoders carry for some images: those of one set share forwards.

    Names do not count: one file under two names is the same adapter.
    """

    loras: str = NONE
    textual_inversions: str = NONE
    ip_adapter: str = NONE
    ip_adapter_scale: float = 1.0
    """diffusers keeps it in the denoiser's attention, which all slots of a forward share."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adapters) and self._identified == other._identified

    def __hash__(self) -> int:
        return hash(self._identified)

    @property
    def _identified(self) -> tuple[str | float, ...]:
        lists = self.loras, self.textual_inversions, self.ip_adapter
        return (*map(nameless, lists), self.ip_adapter_scale)


NO_ADAPTERS: Final = Adapters()


@dataclass(frozen=True, slots=True)
class Lora:
    """One LoRA of an image."""

    name: str
    sha256: str
    """Of the file's bytes."""
    scale: float


@dataclass(frozen=True, slots=True)
class TextualInversion:
    """One embedding of an image."""

    name: str
    token: str
    """What prompts call it."""
    sha256: str
    """Of the file's bytes."""


@dataclass(frozen=True, slots=True)
class IpAdapter:
    """The IP-Adapter of an image."""

    name: str
    sha256: str
    """Of the file's bytes."""
    image_encoder: str
    """What people call the model that it sees pictures by: a hub id, or a folder's own name."""
    revision: str
    """The exact weights of that model."""


@dataclass(frozen=True, slots=True)
class ControlNet:
    """One ControlNet of an image."""

    name: str
    revision: str
    """Its exact weights, as a model's."""
    scale: float
    """Of its part beside others; `controlnet_conditioning_scale` is of all."""


def loras_of(text: str) -> tuple[Lora, ...]:
    """The LoRAs of a canonical text, in their order."""
    return tuple(Lora(**one) for one in json.loads(text))


def textual_inversions_of(text: str) -> tuple[TextualInversion, ...]:
    """The embeddings of a canonical text, in their order."""
    return tuple(TextualInversion(**one) for one in json.loads(text))


def ip_adapter_of(text: str) -> IpAdapter | None:
    """The IP-Adapter of a canonical text; None where it has none. Raises RenderError for several."""
    listed = json.loads(text)
    if len(listed) > 1:
        raise RenderError(f"ip_adapter: holds {len(listed)} IP-Adapters, and an image has one: remove some")
    return IpAdapter(**listed[0]) if listed else None


def controlnets_of(text: str) -> tuple[ControlNet, ...]:
    """The ControlNets of a canonical text, in their order."""
    return tuple(ControlNet(**one) for one in json.loads(text))


def _text(listed: list[Any]) -> str:
    return json.dumps(listed, ensure_ascii=False, separators=(",", ":"))
