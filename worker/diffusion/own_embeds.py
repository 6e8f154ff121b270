"""Embeddings of texts with weights, and of texts longer than a window, for pipelines of CLIP encoders.

`a1111` multiplies the embedding of each token by its weight and restores the mean of its window, as A1111
does; `compel` is left to compel. A text is encoded window by window at batch 1: its embedding follows from it
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.errors import RenderError
from jobs.prompt_weights import Part, PromptSyntaxError, Section, a1111_sections
from jobs.request import ImageRequest
from jobs.wording import shortened
from worker.diffusion import compel_embeds
from worker.diffusion.text_windows import Window, Windows, empty_window, window_of, windows_of
from worker.diffusion.told_cuts import told_cut

_ROUNDING = 1e-6
"""Of the embeddings' size: a mean below it is what float32 rounds."""


@dataclass(frozen=True, slots=True, eq=False)
class Embeds:
    """What stands for a text: [n*L,D], and [P] where the pipeline has a pooled one."""

    tokens: torch.Tensor
    pooled: torch.Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class ClipEncoder:
    """A tokenizer and its CLIP text encoder."""

    tokenizer: Any
    module: Any
    pools: bool = False
    """Whether the pipeline is Stable Diffusion XL's kind: it takes the states before the last layer, and what
    the last of its encoders pooled; else the last layer's, normalised."""

    @property
    def window(self) -> int:
        """The tokens that it takes at a time."""
        return window_of(self.tokenizer, self.module)

    def windows(self, request: ImageRequest, text: str) -> Windows:
        """A text of a request whose syntax is not compel's."""
        chunk = request.long_prompts == "chunk"
        return windows_of(_sections(request, text), self.tokenizer, self.window, chunk=chunk)

    def encode(self, window: Window, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """[L,D] with the weights, and the first of the encoder's outputs."""
        ids = torch.tensor([window.ids], device=device)
        mask = None
        if getattr(self.module.config, "use_attention_mask", False):
            ends = window.ids.index(self.tokenizer.eos_token_id) + 1
            mask = torch.tensor([[1] * ends + [0] * (len(window.ids) - ends)], device=device)
        encoded = self.module(ids, attention_mask=mask, output_hidden_states=self.pools)
        hidden = encoded.hidden_states[-2] if self.pools else encoded[0]
        return _weighted(hidden[0], window.weights), encoded[0]

    def empty(self, device: torch.device) -> torch.Tensor:
        """[L,D]: an empty text."""
        return self.encode(empty_window(self.tokenizer, self.window), device)[0]


class OwnEmbeds:
    """Encodes the texts of requests that a pipeline's own call does not encode as they ask."""

    def __init__(self, encoders: Sequence[ClipEncoder], device: torch.device) -> None:
        """encoders: in the order in which the pipeline joins their embeddings; the last one pools."""
        self._encoders, self._device = encoders, device

    @torch.no_grad()
    def of(self, request: ImageRequest) -> tuple[Embeds, Embeds | None]:
        """The prompt's, and the negative prompt's where the request is guided.

        Both have as many windows: the shorter one is filled with empty texts, as compel and A1111's option
        `pad_cond_uncond` do. Raises RenderError for a text that cannot be read, and where compel is missing.
        """
        texts = [request.prompt, *([request.negative_prompt] if request.guided else [])]
        each = [[self._encoded(request, text, encoder) for encoder in self._encoders] for text in texts]
        longest = max(len(tokens) for parts in each for tokens, _pooled in parts)
        prompt, *negative = [self._joined(parts, longest) for parts in each]
        return prompt, negative[0] if negative else None

    def told(self, request: ImageRequest) -> str | None:
        """What no encoder gets of the request's texts; None where all is encoded."""
        negative = request.negative_prompt if request.guided else ""
        return told_cut(*(self._shortest(request, text) for text in (request.prompt, negative)))

    def _shortest(self, request: ImageRequest, text: str) -> str:
        return min((self._left_out(request, text, encoder) for encoder in self._encoders), key=len)

    @staticmethod
    def _left_out(request: ImageRequest, text: str, encoder: ClipEncoder) -> str:
        if request.syntax != "compel":
            return encoder.windows(request, text).left_out
        if request.long_prompts == "chunk":
            return ""
        return compel_embeds.left_out(text, encoder.tokenizer, encoder.window)

    def _encoded(
        self, request: ImageRequest, text: str, encoder: ClipEncoder
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[n*L,D] of a text by one encoder, and what that pooled of its beginning."""
        if request.syntax == "compel":
            return compel_embeds.encode(
                text,
                encoder.tokenizer,
                encoder.module,
                self._device,
                chunk=request.long_prompts == "chunk",
                pools=encoder.pools,
            )
        windows = [encoder.encode(one, self._device) for one in encoder.windows(request, text).windows]
        return torch.cat([hidden for hidden, _output in windows]), windows[0][1]

    def _joined(self, parts: Sequence[tuple[torch.Tensor, torch.Tensor]], longest: int) -> Embeds:
        """What the encoders made of one text, each filled up to `longest` tokens, side by side."""
        filled = []
        for encoder, (tokens, _pooled) in zip(self._encoders, parts, strict=True):
            lacking = (longest - len(tokens)) // encoder.window
            empty = [encoder.empty(self._device)] * lacking if lacking else []
            filled.append(torch.cat([tokens, *empty]))
        return Embeds(torch.cat(filled, dim=-1), parts[-1][1][0] if self._encoders[-1].pools else None)


def _weighted(hidden: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """[L,D] with each token's embedding multiplied, and the mean of all as before.

    A mean of nothing but rounding, which an encoder of random weights has, is not restored: a quotient of two
    such means is any number, or none. Source: A1111's `EmphasisOriginal`.
    """
    if all(weight == 1.0 for weight in weights):
        return hidden
    before = hidden.float()
    after = before * torch.tensor(weights, device=hidden.device)[:, None]
    means = torch.stack([before.mean(), after.mean()])
    restored = means.abs().amin() > _ROUNDING * before.abs().mean()
    return torch.where(restored, after * (means[0] / means[1]), after).to(hidden.dtype)


def _sections(request: ImageRequest, text: str) -> Sequence[Section]:
    if request.syntax != "a1111":
        return ((Part(text, 1.0),),)
    try:
        return a1111_sections(text)
    except PromptSyntaxError as error:
        raise RenderError(f"{shortened(text)}: {error}") from None
