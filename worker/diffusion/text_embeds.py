"""Prompts to embeddings: batched, each text once, the last ones kept."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import torch

from worker.diffusion.precision import Precision
from worker.diffusion.text_windows import window_of

log = logging.getLogger(__name__)

KEPT = 128
"""Embeddings in the cache: 30 MB at Stable Diffusion's 77 x 768 in float32. Four batches where those are
more: what was encoded ahead must still be there when it is asked for."""

_REMEMBERED = 4096
"""Texts of which is kept what was left out."""


class TextEmbeds:
    """A tokenizer, its text encoder, and a cache of their last results."""

    def __init__(self, tokenizer: Any, text_encoder: Any) -> None:
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._window = window_of(tokenizer, text_encoder)
        self.left_out = lru_cache(_REMEMBERED)(self._left_out)
        """The end of a text that the window has no room for; empty where it has."""
        self._kept: OrderedDict[tuple[str, int, str], torch.Tensor] = OrderedDict()

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D): tokens of the window, and the encoder's width."""
        return self._window, int(self._text_encoder.config.hidden_size)

    def get(
        self,
        texts: Sequence[str],
        precision: Precision,
        device: torch.device,
        *,
        batch: int | None = None,
        ahead: Iterable[str] = (),
    ) -> torch.Tensor:
        """The last hidden states of B texts: [B,L,D] in the precision's dtype of weights.

        Texts are encoded `batch` at a time, equal ones once, in batches that are always full: the
        embedding of a text follows from it and `batch` alone. What fills a batch up is `ahead`, texts that
        are asked for soon, then the last text again. batch None is B, and gives what diffusers' pipeline
        gives for B prompts. A text longer than the encoder's window is cut; a warning names what was lost.
        A text that breaks the encoder raises when it is asked for, never while it is only ahead.
        """
        size = len(texts) if batch is None else batch
        keys = [(precision.name, size, text) for text in texts]
        result = {key: self._kept[key] for key in keys if key in self._kept}
        missing = [text for text in dict.fromkeys(texts) if (precision.name, size, text) not in self._kept]
        lacking = len(missing)
        if missing:
            others = (text for text in dict.fromkeys(ahead) if text not in missing)
            coming = (text for text in others if (precision.name, size, text) not in self._kept)
            missing += list(islice(coming, -len(missing) % size))
        for start in range(0, len(missing), size):
            together = missing[start : start + size]
            try:
                encoded = self._encode(together, size, precision, device)
            except Exception as error:
                if start + len(together) <= lacking:
                    raise
                # One of the texts ahead may be to blame, and none of those asked for.
                log.info("%s: encoding once more, without texts ahead (%s)", type(error).__name__, error)
                together = missing[start:lacking]
                encoded = self._encode(together, size, precision, device)
            for text, embeds in zip(together, encoded, strict=False):
                # A copy, or one kept text would keep its whole batch in memory.
                kept = embeds.to(precision.weights, copy=True)
                result[precision.name, size, text] = self._kept[precision.name, size, text] = kept
        for key in keys:
            self._kept.move_to_end(key)
        most = KEPT if batch is None else max(KEPT, 4 * batch)
        while len(self._kept) > most:
            self._kept.popitem(last=False)
        return torch.stack([result[key] for key in keys])

    def forget(self) -> None:
        """Drops every embedding that is kept, and what is known of texts that are too long."""
        self._kept.clear()
        self.left_out.cache_clear()

    @torch.no_grad()
    def _encode(
        self, batch: Sequence[str], size: int, precision: Precision, device: torch.device
    ) -> torch.Tensor:
        """[size,L,D]: the texts' embeddings, and the last text's again where they are fewer than `size`."""
        window = self._window
        texts = [*batch, *[batch[-1]] * (size - len(batch))]
        for text in dict.fromkeys(batch):
            if lost := self.left_out(text):
                log.warning("prompt cut at %d tokens: %r: left out: %r", window, text, lost)
        tokens = self._tokenizer(
            texts, padding="max_length", max_length=window, truncation=True, return_tensors="pt"
        )
        masked = getattr(self._text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if masked else None
        with precision.computing(device):
            encoded: torch.Tensor = self._text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]
        return encoded

    def _left_out(self, text: str) -> str:
        ids = self._tokenizer(text, verbose=False).input_ids
        return str(self._tokenizer.decode(ids[self._window - 1 : -1])) if len(ids) > self._window else ""
