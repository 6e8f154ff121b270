"""A1111's `<lora:ink:0.8>` in a prompt: taken out of the text, with the name and the scale that it says.

Source: AUTOMATIC1111's stable-diffusion-webui, modules/extra_networks.py and
extensions-builtin/Lora/extra_networks_lora.py. The tag is removed before the text is encoded.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from jobs.adapters import MOST_SCALE
from jobs.wording import shortened

LORA_TAG: Final = "<lora:"
"""How a tag begins, in any case."""
_TAG = re.compile(r"<lora:([^<>]{0,400})>", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_BLANKS: Final = " \t"


class TagError(ValueError):
    """A tag says something that is not rendered; the message shows it, and the remedy."""


class LoraTag(NamedTuple):
    """What one tag says."""

    name: str
    """Of a file in `lora_folder`, without its suffix."""
    scale: float


class Untagged(NamedTuple):
    """A prompt without its tags, and what they say, in their order."""

    prompt: str
    tags: tuple[LoraTag, ...]


def untagged(prompt: str) -> Untagged:
    """The prompt without its LoRAs' tags and the blank that each leaves. Raises TagError."""
    if LORA_TAG not in prompt.lower():
        return Untagged(prompt, ())
    tags = tuple(_tag(found) for found in _TAG.finditer(prompt))
    parts = _TAG.split(prompt)[::2]
    text = parts[0]
    for part in parts[1:]:
        if text.strip() == "":
            text = part.lstrip(_BLANKS)
        elif part == "" or part[0] in f"{_BLANKS},\n":
            text = text.rstrip(_BLANKS) + part
        else:
            text += part
    return Untagged(text, tags)


def _tag(found: re.Match[str]) -> LoraTag:
    """`ink`, `ink:0.8`, `ink:0.8:0.8`: name, weight of the text encoders, weight of the UNet."""
    shown = shortened(found[0])
    name, *weights = (part.strip() for part in found[1].split(":"))
    if not name:
        raise TagError(f"{shown} names no file: write <lora:NAME:0.8>")
    given: dict[str, float] = {}
    for place, written in enumerate(weights):
        key, equals, value = written.partition("=")
        key, value = (
            (key.strip(), value.strip()) if equals else (("te", "unet", "dyn")[min(place, 2)], written)
        )
        if key not in ("te", "unet") or _NUMBER.fullmatch(value) is None:
            raise TagError(
                f"{shown}: {shortened(written)} is no weight that is read: write <lora:{name}:0.8>"
            )
        given[key] = float(value)
    text_encoder = given.get("te", 1.0)
    scale = given.get("unet", text_encoder)
    if "te" in given and scale != text_encoder:
        raise TagError(
            f"{shown} weighs text encoders and UNet differently, which is not rendered: write one weight, as "
            f"<lora:{name}:{scale:g}>"
        )
    if "te" not in given and "unet" in given and scale != 1.0:
        raise TagError(
            f"{shown} weighs the UNet alone, which is not rendered: write one weight, as "
            f"<lora:{name}:{scale:g}>"
        )
    if abs(scale) > MOST_SCALE:
        raise TagError(f"{shown}: its weight must lie between {-MOST_SCALE:g} and {MOST_SCALE:g}")
    return LoraTag(name, scale)
