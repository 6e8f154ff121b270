"""Stable Diffusion XL, 3 and FLUX.1 in their published sizes, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from tests.tiny.trained_tokenizers import clip_tokenizer, t5_tokenizer


@dataclass(frozen=True, slots=True)
class Model:
    """A pipeline of published size, and what it is usually called with."""

    class_name: str
    build: Callable[[], Any]
    """On torch's default device and in its default number format, without a scheduler."""
    scheduler: Callable[[], Any]
    steps: int
    guidance: float


def sdxl() -> StableDiffusionXLPipeline:
    """The configurations of stabilityai/stable-diffusion-xl-base-1.0."""
    first, second = clip_tokenizer(), clip_tokenizer()
    return StableDiffusionXLPipeline(
        vae=_autoencoder(4, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_clip_l(first)),
        tokenizer=first,
        text_encoder_2=CLIPTextModelWithProjection(_clip_big_g(second)),
        tokenizer_2=second,
        unet=UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            use_linear_projection=True,
        ),
        scheduler=None,
        add_watermarker=False,
    )


def sd3() -> StableDiffusion3Pipeline:
    """The configurations of stabilityai/stable-diffusion-3-medium-diffusers."""
    first, second, third = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    return StableDiffusion3Pipeline(
        vae=_autoencoder(
            16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(_clip_l(first)),
        tokenizer=first,
        text_encoder_2=CLIPTextModelWithProjection(_clip_big_g(second)),
        tokenizer_2=second,
        text_encoder_3=_t5_xxl(),
        tokenizer_3=third,
        transformer=SD3Transformer2DModel(
            sample_size=128,
            in_channels=16,
            out_channels=16,
            num_layers=24,
            attention_head_dim=64,
            num_attention_heads=24,
            joint_attention_dim=4096,
            caption_projection_dim=1536,
            pooled_projection_dim=2048,
            pos_embed_max_size=192,
        ),
        scheduler=None,
    )


def flux() -> FluxPipeline:
    """The configurations of black-forest-labs/FLUX.1-dev, which are the defaults of its transformer."""
    first, second = clip_tokenizer(), t5_tokenizer()
    return FluxPipeline(
        vae=_autoencoder(
            16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(_clip_l(first)),
        tokenizer=first,
        text_encoder_2=_t5_xxl(),
        tokenizer_2=second,
        transformer=FluxTransformer2DModel(guidance_embeds=True),
        scheduler=None,
    )


def _autoencoder(channels: int, **others: Any) -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=1024,
        latent_channels=channels,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        **others,
    )


def _clip_l(tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
        hidden_act="quick_gelu",
        **_marks(tokenizer),
    )


def _clip_big_g(tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        projection_dim=1280,
        hidden_act="gelu",
        **_marks(tokenizer),
    )


def _marks(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _t5_xxl() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


def _euler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )


def _flow() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def _shifted_flow() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


MODELS: Final = {
    "sdxl": Model("StableDiffusionXLPipeline", sdxl, _euler, 30, 5.0),
    "sd3": Model("StableDiffusion3Pipeline", sd3, _flow, 28, 7.0),
    "flux": Model("FluxPipeline", flux, _shifted_flow, 28, 3.5),
}


def build(model: Model, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline with random weights, made on the device in the number format."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with device:
            pipeline = model.build()
    finally:
        torch.set_default_dtype(before)
    pipeline.register_modules(scheduler=model.scheduler())  # its noise levels stay in float32 on the host
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipeline
