from __future__ import annotations

import random

import pytest
import torch

from tools.shapes.draw import draw_crowd
from tools.shapes.networks import SCALING_FACTOR, build_vae
from tools.shapes.train_vae import normalise, to_images, to_tensor


@torch.no_grad()
def test_normalised_latents_have_mean_0_and_variance_1_and_decode_as_before() -> None:
    torch.manual_seed(0)
    vae = build_vae().eval()
    rng = random.Random(0)
    pictures = to_tensor([draw_crowd(rng) for _ in range(8)])
    before = vae.encode(pictures).latent_dist
    decoded = vae.decode(before.mean).sample
    normalise(vae, before.mean)
    after = vae.encode(pictures).latent_dist
    scaled = after.mean * SCALING_FACTOR
    assert scaled.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert scaled.std(dim=(0, 2, 3)) == pytest.approx([1.0] * 8, abs=1e-4)
    assert torch.allclose(vae.decode(after.mean).sample, decoded, atol=1e-4)
    spread = after.std / after.mean.std(dim=(0, 2, 3))[:, None, None]
    assert torch.allclose(spread, before.std / before.mean.std(dim=(0, 2, 3))[:, None, None], rtol=1e-4)


def test_pictures_become_tensors_and_pictures_again_bit_for_bit() -> None:
    picture = draw_crowd(random.Random(0))
    assert to_images(to_tensor([picture]))[0].tobytes() == picture.tobytes()
