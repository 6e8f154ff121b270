"""Prompts to embeddings: batched, each text once, the last ones kept."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from worker.precision import Precision

log = logging.getLogger(__name__)

_KEPT = 128
"""Embeddings in the cache: 30 MB at Stable Diffusion's 77 x 768 in float32."""


class TextEmbeds:
    """A tokenizer, its text encoder, and a cache of what they last said."""

    def __init__(self, tokenizer: Any, text_encoder: Any) -> None:
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._kept: OrderedDict[tuple[str, int, str], torch.Tensor] = OrderedDict()

    def get(self, texts: Sequence[str], precision: Precision, device: torch.device) -> torch.Tensor:
        """The last hidden states of B texts: [B,77,D] in the precision's dtype of weights.

        Texts are encoded together, equal ones once, in a batch of B rows whatever the cache holds: a text's
        embedding follows from the text and B alone, and is what StableDiffusionPipeline gets for B prompts.
        A text longer than the encoder's window is cut, and a warning names what was lost.
        """
        keys = [(precision.name, len(texts), text) for text in texts]
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        if missing:
            rows = [text for *_, text in missing]
            with precision.computing(device):
                encoded = self._encode(rows + [rows[-1]] * (len(texts) - len(rows)), device)
            for key, embeds in zip(missing, encoded, strict=False):
                # A copy, or one kept row would keep its whole batch in memory.
                self._kept[key] = embeds.to(precision.weights, copy=True)
        for key in keys:
            self._kept.move_to_end(key)
        result = torch.stack([self._kept[key] for key in keys])
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return result

    @torch.no_grad()
    def _encode(self, texts: Sequence[str], device: torch.device) -> torch.Tensor:
        config = self._text_encoder.config
        # A tokenizer whose files do not tell its window answers 10**30.
        window = min(self._tokenizer.model_max_length, config.max_position_embeddings)
        whole = self._tokenizer(texts, verbose=False).input_ids
        for text, ids in dict(zip(texts, whole, strict=True)).items():
            if len(ids) > window:
                lost = self._tokenizer.decode(ids[window - 1 : -1])
                log.warning("prompt cut at %d tokens: %r: left out: %r", window, text, lost)
        tokens = self._tokenizer(
            texts, padding="max_length", max_length=window, truncation=True, return_tensors="pt"
        )
        masked = getattr(config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if masked else None
        encoded: torch.Tensor = self._text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]
        return encoded
