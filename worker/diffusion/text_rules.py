"""How texts of different lengths share a forward, for the few denoisers whose texts are not padded.

Most pipelines pad every text to one length. Where one does not, images of different lengths would not meet,
or worse: the denoiser pads or trims to the longest text of the batch, and an image's bytes follow from its
neighbours. Each rule makes the lengths of a forward follow from the call alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import pad

from worker.diffusion.per_tensor import PerTensor

_MULTIPLE = 64
"""Tokens: texts meet whose lengths round up to the same multiple."""


class TextRule(Protocol):
    """What is done to a denoiser's calls for the sake of their texts."""

    @property
    def spare_slots(self) -> int:
        """Slots of every forward that hold no image."""

    @property
    def any_form(self) -> frozenset[str]:
        """Arguments whose items may differ in shape within one forward."""

    def prepare(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """The call as it shares a forward."""

    def fill_spare(self, collated: dict[str, Any]) -> dict[str, Any]:
        """The joined call, its last `spare_slots` slots filled."""


@dataclass(frozen=True, slots=True)
class AsTheyAre:
    """Texts have one length already, or meet only those of their own."""

    spare_slots: int = 0
    any_form: frozenset[str] = frozenset()

    def prepare(self, call: Mapping[str, Any]) -> dict[str, Any]:
        return dict(call)

    def fill_spare(self, collated: dict[str, Any]) -> dict[str, Any]:
        return collated


@dataclass(frozen=True, slots=True)
class Padded:
    """Texts are padded to a multiple of 64 tokens, and their mask is always given.

    A pipeline leaves out a mask that masks nothing, which would be another call.
    """

    embeds: str
    """The argument [slots, tokens, D]."""
    mask: str | None
    """The argument [slots, tokens], true where a token counts; None where the call gives lengths instead."""
    spare_slots: int = 0
    any_form: frozenset[str] = frozenset()

    def prepare(self, call: Mapping[str, Any]) -> dict[str, Any]:
        embeds = call[self.embeds]
        prepared = {**call, self.embeds: _EMBEDS.of(embeds, _padded_embeds)}
        if self.mask is not None:
            mask = call.get(self.mask)
            longer = _WHOLE_MASKS.of(embeds, _whole_mask) if mask is None else _MASKS.of(mask, _padded_mask)
            prepared[self.mask] = longer
        return prepared

    def fill_spare(self, collated: dict[str, Any]) -> dict[str, Any]:
        return collated


def _padded_embeds(embeds: torch.Tensor) -> torch.Tensor:
    return pad(embeds, (0, 0, 0, -embeds.shape[1] % _MULTIPLE))


def _padded_mask(mask: torch.Tensor) -> torch.Tensor:
    return pad(mask, (0, -mask.shape[1] % _MULTIPLE))


def _whole_mask(embeds: torch.Tensor) -> torch.Tensor:
    return _padded_mask(torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device))


_EMBEDS, _MASKS, _WHOLE_MASKS = (
    PerTensor[torch.Tensor](),
    PerTensor[torch.Tensor](),
    PerTensor[torch.Tensor](),
)
"""A pipeline passes the same tensors in every step: they are padded once for all of them."""


@dataclass(frozen=True, slots=True)
class TrimmedToLongest:
    """The denoiser trims texts to the longest of the batch: a spare slot holds one longer than any.

    Every forward then is as long, and always masked, whatever its images' texts are.
    """

    embeds: str
    mask: str
    spare_slots: int = 1
    any_form: frozenset[str] = frozenset()

    def prepare(self, call: Mapping[str, Any]) -> dict[str, Any]:
        # One more than the longest there can be, so that none is as long as the spare slot's.
        return {
            **call,
            self.embeds: _LONGER_EMBEDS.of(call[self.embeds], _longer_embeds),
            self.mask: _LONGER_MASKS.of(call[self.mask], _longer_mask),
        }

    def fill_spare(self, collated: dict[str, Any]) -> dict[str, Any]:
        mask = collated[self.mask].clone()
        mask[-1] = 1
        return {**collated, self.mask: mask}


def _longer_embeds(embeds: torch.Tensor) -> torch.Tensor:
    return pad(embeds, (0, 0, 0, 1))


def _longer_mask(mask: torch.Tensor) -> torch.Tensor:
    return pad(mask, (0, 1))


_LONGER_EMBEDS, _LONGER_MASKS = PerTensor[torch.Tensor](), PerTensor[torch.Tensor]()


@dataclass(frozen=True, slots=True)
class ListPaddedToLongest:
    """Texts are a list of tensors, padded to the longest by the denoiser: a spare slot holds a longer one."""

    texts: str
    """The argument, a list of [tokens, D], or of lists of one such: texts beside no picture."""
    own_multiple: int
    """Tokens to a multiple of which the denoiser pads each text first."""
    spare_slots: int = 1

    @property
    def any_form(self) -> frozenset[str]:
        return frozenset({self.texts})

    def prepare(self, call: Mapping[str, Any]) -> dict[str, Any]:
        parts = [_parts(text) for text in call[self.texts]]
        if any(len(one) != 1 for one in parts):
            return dict(call)
        longest = max(len(part) for [part] in parts)
        # A constant of the call: it meets those of the same length in the spare slot.
        return {**call, _LENGTH: longest + -longest % _MULTIPLE + self.own_multiple}

    def fill_spare(self, collated: dict[str, Any]) -> dict[str, Any]:
        length = collated.pop(_LENGTH, None)
        if length is None:
            return collated
        texts = list(collated[self.texts])
        [last] = _parts(texts[-1])
        by_length = _SPARE_TEXTS.of(last, _none_yet)
        if length not in by_length:
            by_length[length] = last.new_zeros(length, last.shape[1])
        texts[-1] = by_length[length] if last is texts[-1] else [by_length[length]]
        return {**collated, self.texts: texts}


def _parts(text: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
    """A text's parts: Z-Image Omni has one before and after each picture."""
    return [text] if isinstance(text, torch.Tensor) else list(text)


_LENGTH = "tokens of the spare slot"


def _none_yet(_text: torch.Tensor) -> dict[int, torch.Tensor]:
    return {}


_SPARE_TEXTS: PerTensor[dict[int, torch.Tensor]] = PerTensor()
"""Spare texts by the text whose place they take, and by their length: some images' later calls have less."""


@dataclass(frozen=True, slots=True)
class WithoutIdleCache:
    """Each image has a cache of keys and values, which only pictures that are given would fill: left out."""

    cache: str
    """The argument; its items have a `mode`, which is "write" or "read" while it is used."""
    spare_slots: int = 0
    any_form: frozenset[str] = frozenset()

    def prepare(self, call: Mapping[str, Any]) -> dict[str, Any]:
        cache = call.get(self.cache)
        idle = cache is None or not any(layer.mode in ("write", "read") for layer in cache.caches)
        return {**call, self.cache: None} if idle else dict(call)

    def fill_spare(self, collated: dict[str, Any]) -> dict[str, Any]:
        return collated


_AS_THEY_ARE = AsTheyAre()
_RULES: Mapping[str, TextRule] = {
    "QwenImageTransformer2DModel": Padded("encoder_hidden_states", "encoder_hidden_states_mask"),
    "DreamLiteUNetModel": Padded("encoder_hidden_states", "encoder_attention_mask"),
    "ErnieImageTransformer2DModel": Padded("text_bth", mask=None),
    "LuminaNextDiT2DModel": Padded("encoder_hidden_states", "encoder_mask"),
    "NucleusMoEImageTransformer2DModel": Padded("encoder_hidden_states", "encoder_hidden_states_mask"),
    "GlmImageTransformer2DModel": WithoutIdleCache("kv_caches"),
    "Lumina2Transformer2DModel": TrimmedToLongest("encoder_hidden_states", "encoder_attention_mask"),
    "ZImageTransformer2DModel": ListPaddedToLongest("cap_feats", own_multiple=32),
}


def text_rule_of(denoiser: object) -> TextRule:
    """The rule of a denoiser, by its class."""
    return _RULES.get(type(denoiser).__name__, _AS_THEY_ARE)
