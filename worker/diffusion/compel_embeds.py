"""Embeddings by compel, an extra: imported when the first text in its syntax is rendered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch

from jobs.errors import RenderError
from jobs.prompt_weights import PromptSyntaxError, check_compel, missing_package
from jobs.wording import shortened

_REMEMBERED = 256
"""Texts whose parts are kept: compel's parser takes a millisecond for a few words."""


def encode(
    text: str, tokenizer: Any, text_encoder: Any, device: torch.device, *, chunk: bool, pools: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """[n*L,D] of a text, and [1,P], what the encoder pooled of it; the latter is empty without `pools`.

    pools: as `ClipEncoder.pools`. chunk: whether a text longer than the window has more than one. Raises
    RenderError for a text that compel does not take, and where compel is missing.
    """
    parsed = _parsed(text)
    from compel import Compel, ReturnedEmbeddingsType

    kinds = ReturnedEmbeddingsType
    compel = Compel(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        truncate_long_prompts=not chunk,
        returned_embeddings_type=(
            kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED if pools else kinds.LAST_HIDDEN_STATES_NORMALIZED
        ),
        requires_pooled=pools,
        device=str(device),
    )
    try:
        [tokens], _options = compel.build_conditioning_tensor_for_conjunction(parsed)
        if not pools:
            return tokens, tokens[:0]
        return tokens, compel.conditioning_provider.get_pooled_embeddings([text], device=str(device))
    except Exception as error:  # whatever compel stumbles over: it has no errors of its own for this
        raise _not_taken(text, error) from None


def left_out(text: str, tokenizer: Any, window: int) -> str:
    """The ends of a text's parts that are beyond the window."""
    ends = []
    for fragments in _prompts(_parsed(text)):
        ids = [one for part in fragments for one in tokenizer(part, add_special_tokens=False).input_ids]
        if len(ids) > window - 2:
            ends.append(tokenizer.decode(ids[window - 2 :]))
    return " … ".join(ends)


def _prompts(parsed: Any) -> Iterator[list[str]]:
    """The texts of each prompt that is encoded by itself."""
    for prompt in parsed.prompts:
        for one in getattr(prompt, "prompts", [prompt]):  # a blend has several
            yield [fragment.text for fragment in one.children]


@lru_cache(_REMEMBERED)
def _parsed(text: str) -> Any:
    """What compel's parser makes of a text. Raises RenderError."""
    try:
        check_compel(text)
    except PromptSyntaxError as error:
        raise RenderError(f"{shortened(text)}: {error}") from None
    if (missing := missing_package("compel")) is not None:
        raise RenderError(missing)
    from compel import Compel

    _parse_in_linear_time()
    try:
        return Compel.parse_prompt_string(text)
    except Exception as error:
        raise _not_taken(text, error) from None


def _not_taken(text: str, error: Exception) -> RenderError:
    what = str(error).strip().splitlines()
    said = shortened(what[0] if what else type(error).__name__, 200)
    return RenderError(f"{shortened(text)}: compel does not take it ({said}): write it otherwise")


@lru_cache(None)
def _parse_in_linear_time() -> None:
    """Lets pyparsing remember what it tried: else each bracket within another takes five times as long."""
    import pyparsing

    pyparsing.ParserElement.enable_packrat(cache_size_limit=None)
