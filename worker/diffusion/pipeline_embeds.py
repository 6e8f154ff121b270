"""A pipeline's call with embeddings in the place of texts, for pipelines of CLIP encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline

from worker.diffusion.own_embeds import ClipEncoder, Embeds, OwnEmbeds


def encoders_of(pipeline: DiffusionPipeline) -> OwnEmbeds:
    """The text encoders of a pipeline, in the order in which it joins them."""
    pools = hasattr(pipeline, "text_encoder_2")
    pairs = [("tokenizer", "text_encoder"), *([("tokenizer_2", "text_encoder_2")] if pools else [])]
    found = [
        ClipEncoder(getattr(pipeline, tokenizer), getattr(pipeline, encoder), pools)
        for tokenizer, encoder in pairs
        if getattr(pipeline, encoder) is not None
    ]
    return OwnEmbeds(found, pipeline._execution_device)


def with_embeds(
    given: Mapping[str, Any], config: Mapping[str, Any], embeds: tuple[Embeds, Embeds | None]
) -> dict[str, Any]:
    """The keywords of a call with embeddings instead of the texts.

    config: the pipeline's. An empty negative prompt is all zeros to a pipeline that says so, as in its own
    call.
    """
    prompt, negative = embeds
    call = {name: value for name, value in given.items() if name not in ("prompt", "negative_prompt")}
    call |= {"prompt_embeds": prompt.tokens[None]}
    if prompt.pooled is not None:
        call |= {"pooled_prompt_embeds": prompt.pooled[None]}
    if negative is None:
        return call
    tokens, pooled = negative.tokens, negative.pooled
    if not given.get("negative_prompt") and config.get("force_zeros_for_empty_prompt", False):
        tokens = torch.zeros_like(tokens)
        pooled = None if pooled is None else torch.zeros_like(pooled)
    call |= {"negative_prompt_embeds": tokens[None]}
    if pooled is not None:
        call |= {"negative_pooled_prompt_embeds": pooled[None]}
    return call
