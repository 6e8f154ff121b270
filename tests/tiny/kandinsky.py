"""Tiny Kandinsky pipelines: 2.1 and 2.2, each a prior and a decoder in one, 3 and 5."""

from __future__ import annotations

from typing import TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
    KandinskyCombinedPipeline,
    KandinskyV22CombinedPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    XLMRobertaTokenizer,
)

from tests.tiny.family import Family, random_weights
from tests.tiny.redrawn import redrawn
from tests.tiny.text_encoders import clip_text_encoder, qwen_vl_encoder, t5_encoder
from tests.tiny.trained_tokenizers import CLIP_WINDOW, clip_tokenizer, qwen_tokenizer, t5_tokenizer

UNet = TypeVar("UNet", UNet2DConditionModel, Kandinsky3UNet)
_WIDTH = 32
"""Numbers of a text's and of a picture's embedding."""

_LAST_BETA = 0.005
"""Small, so that DDPM samplers do not divide early predictions by small numbers: rounding would grow."""


def kandinsky_2_1() -> DiffusionPipeline:
    """A prior and a decoder that reads the text once more, with XLM-RoBERTa."""
    with random_weights():
        tokenizer = _xlm_roberta_tokenizer()
        unet = UNet2DConditionModel(
            **_unet_sizes(), addition_embed_type="text_image", encoder_hid_dim_type="text_image_proj"
        )
        return KandinskyCombinedPipeline(
            text_encoder=_multilingual_clip(tokenizer),
            tokenizer=tokenizer,
            unet=_calm(unet),
            scheduler=_decoder_scheduler(),
            movq=_movq(2),
            **_prior(),
        )


def kandinsky_2_2() -> DiffusionPipeline:
    """A prior and a decoder that sees the picture's embedding alone."""
    with random_weights():
        unet = UNet2DConditionModel(
            **_unet_sizes(), addition_embed_type="image", encoder_hid_dim_type="image_proj"
        )
        return KandinskyV22CombinedPipeline(
            unet=_calm(unet), scheduler=_decoder_scheduler(), movq=_movq(2), **_prior()
        )


def kandinsky_3() -> DiffusionPipeline:
    """T5's texts of any length; pictures of 8 x 8 latents."""
    with random_weights():
        tokenizer = t5_tokenizer()
        unet = Kandinsky3UNet(
            time_embedding_dim=32,
            groups=2,
            attention_head_dim=8,
            layers_per_block=2,
            block_out_channels=(16, 16, 16, 16),
            cross_attention_dim=16,
            encoder_hid_dim=_WIDTH,
        )
        return Kandinsky3Pipeline(
            tokenizer=tokenizer,
            text_encoder=t5_encoder(tokenizer, _WIDTH),
            unet=_calm(unet),
            scheduler=DDPMScheduler(beta_end=_LAST_BETA, clip_sample=False),
            movq=_movq(4),
        )


def kandinsky_5() -> DiffusionPipeline:
    """Qwen 2.5 VL's texts of any length and CLIP's pooled text; it paints large pictures alone.

    Its processor needs torchvision, which nothing else here does: the tokenizer stands in its place.
    """
    with random_weights():
        clip, qwen = clip_tokenizer(), qwen_tokenizer()
        transformer = Kandinsky5Transformer3DModel(
            in_visual_dim=4,
            out_visual_dim=4,
            in_text_dim=_WIDTH,
            in_text_dim2=_WIDTH,
            time_dim=16,
            model_dim=16,
            ff_dim=16,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 6, 6),
        )
        vae = AutoencoderKL(
            block_out_channels=(4,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
            mid_block_add_attention=False,
        )
        redrawn(transformer)
        with torch.no_grad():
            # The transformer rounds what its self-attention compares to bfloat16: other rounding would grow.
            for block in (*transformer.text_transformer_blocks, *transformer.visual_transformer_blocks):
                block.self_attention.out_layer.weight.mul_(0.01)
        return Kandinsky5T2IPipeline(
            transformer=transformer,
            vae=redrawn(vae),
            text_encoder=qwen_vl_encoder(qwen, _WIDTH),
            tokenizer=qwen,
            text_encoder_2=clip_text_encoder(clip, _WIDTH),
            tokenizer_2=clip,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )


def _prior() -> dict[str, object]:
    """The first half of Kandinsky 2: it gives a picture's embedding [B, _WIDTH] for a text."""
    tokenizer = clip_tokenizer()
    prior = redrawn(
        PriorTransformer(
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            embedding_dim=_WIDTH,
            num_embeddings=CLIP_WINDOW,
            additional_embeddings=4,
        )
    )
    with torch.no_grad():
        # The embedding is multiplied by this at the end.
        prior.clip_std.fill_(1.0)
    eyes = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            projection_dim=_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
    )
    return {
        "prior_prior": prior,
        "prior_image_encoder": redrawn(eyes),
        "prior_text_encoder": clip_text_encoder(tokenizer, _WIDTH, projected=True),
        "prior_tokenizer": tokenizer,
        "prior_scheduler": UnCLIPScheduler(
            variance_type="fixed_small_log",
            prediction_type="sample",
            clip_sample=True,
            clip_sample_range=5.0,
        ),
        "prior_image_processor": CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16),
    }


def _unet_sizes() -> dict[str, object]:
    return {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 8,
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 8,
        "cross_attention_dim": _WIDTH,
        "encoder_hid_dim": _WIDTH,
        "resnet_time_scale_shift": "scale_shift",
    }


def _calm(unet: UNet) -> UNet:
    """Draw a denoiser's weights again, with small predictions: guidance then leaves latents near by."""
    redrawn(unet)
    with torch.no_grad():
        unet.conv_out.weight.mul_(0.2)
    return unet


def _decoder_scheduler() -> DDPMScheduler:
    return DDPMScheduler(beta_end=_LAST_BETA, variance_type="learned_range", clip_sample=False)


def _movq(levels: int) -> VQModel:
    """MoVQ: a picture is 2 ** (levels - 1) times the latents."""
    movq = redrawn(
        VQModel(
            block_out_channels=(32,) * levels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=4,
            num_vq_embeddings=16,
            norm_num_groups=4,
            norm_type="spatial",
            mid_block_add_attention=False,
        )
    )
    with torch.no_grad():
        # Its norms are multiplied by the latents: few pixels would lie between black and white.
        movq.decoder.conv_out.weight.mul_(0.2)
    return movq


def _xlm_roberta_tokenizer() -> XLMRobertaTokenizer:
    """XLM-RoBERTa's Unigram pieces: the words of T5's tokenizer, and printable ASCII a letter."""
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [piece for piece in t5_tokenizer().get_vocab() if not piece.startswith("<")]
    scored = [(mark, 0.0) for mark in marks] + [
        (piece, -3.0 if len(piece) > 1 else -10.0) for piece in sorted(pieces)
    ]
    return XLMRobertaTokenizer(vocab=scored, model_max_length=CLIP_WINDOW)


def _multilingual_clip(tokenizer: XLMRobertaTokenizer) -> MultilingualCLIP:
    config = MCLIPConfig(
        transformerDimSize=_WIDTH,
        imageDimSize=_WIDTH,
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CLIP_WINDOW + 3,
        pad_token_id=tokenizer.pad_token_id,
    )
    return redrawn(MultilingualCLIP(config))


KANDINSKY = (
    Family("KandinskyCombinedPipeline", kandinsky_2_1, 64, 64, arguments={"prior_num_inference_steps": 2}),
    Family("KandinskyV22CombinedPipeline", kandinsky_2_2, 64, 64, arguments={"prior_num_inference_steps": 2}),
    Family("Kandinsky3Pipeline", kandinsky_3, 64, 64),
    # The smallest of a fixed list.
    Family("Kandinsky5T2IPipeline", kandinsky_5, 1408, 640),
)
"""The families of this file."""
