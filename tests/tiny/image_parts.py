"""Tiny autoencoders and schedulers that several families share."""

from __future__ import annotations

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

SIDE = 64
"""Pixels of most families' pictures: with `autoencoder`, 8 x 8 latents, packed by twos to 16 tokens."""


def autoencoder(
    channels: int = 4, *, scaling_factor: float = 0.5, shift_factor: float | None = None
) -> AutoencoderKL:
    """An autoencoder of `channels` latents to 8 x 8 pixels, as large models have it, without attention.

    `scaling_factor` is small enough that latents of random transformers spread the picture.
    """
    return AutoencoderKL(
        latent_channels=channels,
        block_out_channels=(4, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=SIDE,
        mid_block_add_attention=False,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    ).eval()


def flow_scheduler(*, dynamic: bool = True) -> FlowMatchEulerDiscreteScheduler:
    """Flow matching by Euler; `dynamic` shifts the sigmas by the number of tokens, else by 3."""
    if not dynamic:
        return FlowMatchEulerDiscreteScheduler(shift=3.0)
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
