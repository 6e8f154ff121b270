"""FLUX.1 dev and schnell, FLUX.2 dev and klein, Chroma and Bria with random weights."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLFlux2,
    BriaPipeline,
    BriaTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
)

from tests.tiny.family import Family, random_weights
from tests.tiny.image_parts import SIDE, autoencoder, flow_scheduler
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import clip_text_encoder, mistral_encoder, qwen3_encoder, t5_encoder
from tests.tiny.trained_tokenizers import clip_tokenizer, qwen_tokenizer, t5_tokenizer

_ROTARY = {"attention_head_dim": 16, "num_attention_heads": 2, "axes_dims_rope": (4, 6, 6)}
_LAYERS = {"num_layers": 1, "num_single_layers": 1}


def flux_dev() -> FluxPipeline:
    """FLUX.1 whose guidance is an embedding; see `_flux`."""
    return _flux(guided=True)


def flux_schnell() -> FluxPipeline:
    """FLUX.1 without an embedding of guidance, and without the shift by tokens; see `_flux`."""
    return _flux(guided=False)


def flux_2() -> Flux2Pipeline:
    """FLUX.2 dev: Mistral's chat, three of its layers side by side."""
    tokenizer = qwen_tokenizer()
    with random_weights():
        return Flux2Pipeline(
            scheduler=flow_scheduler(),
            vae=_flux_2_autoencoder(),
            text_encoder=mistral_encoder(tokenizer),
            tokenizer=tokenizer,
            transformer=_flux_2_transformer(guided=True),
        )


def flux_2_klein() -> Flux2KleinPipeline:
    """FLUX.2 klein: Qwen 3, guided by a second call of the transformer."""
    tokenizer = qwen_tokenizer()
    with random_weights():
        return Flux2KleinPipeline(
            scheduler=flow_scheduler(),
            vae=_flux_2_autoencoder(),
            text_encoder=qwen3_encoder(tokenizer),
            tokenizer=tokenizer,
            transformer=_flux_2_transformer(guided=False),
        )


def chroma() -> ChromaPipeline:
    """FLUX.1 without pooled text: one small network makes every layer's modulation."""
    tokenizer = t5_tokenizer()
    with random_weights():
        return ChromaPipeline(
            scheduler=flow_scheduler(dynamic=False),
            vae=autoencoder(16, shift_factor=0.1),
            text_encoder=t5_encoder(tokenizer),
            tokenizer=tokenizer,
            transformer=ChromaTransformer2DModel(
                in_channels=64,
                joint_attention_dim=32,
                approximator_num_channels=8,
                approximator_hidden_dim=16,
                approximator_layers=1,
                **_LAYERS,
                **_ROTARY,
            ).eval(),
        )


def bria() -> BriaPipeline:
    """FLUX.1's blocks on T5 alone, with 4 latent channels."""
    tokenizer = t5_tokenizer()
    with random_weights():
        return BriaPipeline(
            transformer=BriaTransformer2DModel(
                in_channels=16, joint_attention_dim=32, **_LAYERS, **_ROTARY
            ).eval(),
            scheduler=flow_scheduler(),
            vae=autoencoder(),
            text_encoder=t5_encoder(tokenizer),
            tokenizer=tokenizer,
        )


def _flux(*, guided: bool) -> FluxPipeline:
    """CLIP's pooled text of 16 and T5's of 32; 16 latent channels, packed by twos to 64."""
    first, second = clip_tokenizer(), t5_tokenizer()
    with random_weights():
        return FluxPipeline(
            scheduler=flow_scheduler(dynamic=guided),
            vae=autoencoder(16, shift_factor=0.1),
            text_encoder=clip_text_encoder(first, 16),
            tokenizer=first,
            text_encoder_2=t5_encoder(second),
            tokenizer_2=second,
            transformer=FluxTransformer2DModel(
                in_channels=64,
                joint_attention_dim=32,
                pooled_projection_dim=16,
                guidance_embeds=guided,
                **_LAYERS,
                **_ROTARY,
            ).eval(),
        )


def flux_of_real_width() -> FluxPipeline:
    """`flux_dev` in bfloat16 with a transformer of 3072, as published ones have: half a billion weights.

    They are one run of random numbers over and over, shifted for each tensor, which takes a second.
    """
    with torch.device("meta"):
        wide = FluxTransformer2DModel(
            in_channels=64, joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=True, **_LAYERS
        )
    transformer = wide.bfloat16().to_empty(device="cpu").eval()
    with random_weights(), torch.no_grad():
        noise = 0.02 * torch.randn(1_000_003, dtype=torch.bfloat16)
        for number, weight in enumerate(transformer.parameters()):
            flat, shifted = weight.view(-1), noise.roll(number)
            for begin in range(0, flat.numel(), noise.numel()):
                piece = flat[begin : begin + noise.numel()]
                piece.copy_(shifted[: piece.numel()])
    return FluxPipeline(**{**flux_dev().components, "transformer": transformer})


def _flux_2_autoencoder() -> AutoencoderKLFlux2:
    return AutoencoderKLFlux2(
        block_out_channels=(4, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
        mid_block_add_attention=False,
    ).eval()


def _flux_2_transformer(*, guided: bool) -> Flux2Transformer2DModel:
    return strengthened(
        Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * 32,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guided,
        ),
        1.5,
    )


_SHORT = {"max_sequence_length": 32}
_THREE_LAYERS = {"max_sequence_length": 64, "text_encoder_out_layers": (0, 1, 2)}
FLUX = (
    # Its guidance is the embedding; a true_cfg_scale makes the negative prompt count too.
    Family("FluxPipeline", flux_dev, SIDE, SIDE, arguments={**_SHORT, "true_cfg_scale": 2.0}),
    Family("FluxPipeline", flux_schnell, SIDE, SIDE, arguments=_SHORT, variant="schnell"),
    Family("Flux2Pipeline", flux_2, SIDE, SIDE, arguments=_THREE_LAYERS),
    Family("Flux2KleinPipeline", flux_2_klein, SIDE, SIDE, arguments=_THREE_LAYERS),
    Family("ChromaPipeline", chroma, SIDE, SIDE, arguments=_SHORT),
    Family("BriaPipeline", bria, SIDE, SIDE, arguments=_SHORT),
)
"""The families of this file."""
