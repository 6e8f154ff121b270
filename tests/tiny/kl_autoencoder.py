"""A tiny `AutoencoderKL` of any factor; `image_parts` has that of 8 for pictures of 64 pixels."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL


def kl_autoencoder(
    latent_channels: int, factor: int, contrast: float = 2.0, **config: float | list[float]
) -> AutoencoderKL:
    """An autoencoder with `factor` (2, 4, 8) pixels a latent and side, whose pictures have a spread.

    Its last convolution is `contrast` times what chance makes it: pictures would be gray otherwise.
    `config` is further configuration, such as `shift_factor`.
    """
    blocks = factor.bit_length()
    autoencoder = AutoencoderKL(
        block_out_channels=(8,) * blocks,
        norm_num_groups=2,
        layers_per_block=1,
        latent_channels=latent_channels,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        **config,
    )
    with torch.no_grad():
        autoencoder.decoder.conv_out.weight.mul_(contrast)
    return autoencoder.eval()
