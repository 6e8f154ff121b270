"""Trains the VAE on drawings, and gates it: the checker must read its reconstructions."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from tools.shapes import checker
from tools.shapes.draw import draw, draw_crowd
from tools.shapes.grammar import Scene, pairs, random_scene
from tools.shapes.networks import build_vae
from tools.shapes.progress import half_cosine, load_checkpoint, log, save_checkpoint

GATE = 0.98
"""The share of reconstructions that the checker must read wholly right before the UNet may start."""

KINDS = ("one", "places", "relation", "count")
_BATCH, _PEAK, _WARMUP = 16, 2e-3, 100
_CROWDS = 0.6
"""The share of training pictures with a thing in each corner: more edges a picture."""
_L1, _KL = 0.5, 5e-5
_SAVE_EVERY, _LOOK_EVERY = 100, 400


def train_vae(folder: Path, steps: int, device: torch.device) -> AutoencoderKL:
    """Train for `steps` in all, from the folder's checkpoint where it has one, and return the VAE."""
    torch.manual_seed(0)
    vae = build_vae().to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=_PEAK, weight_decay=1e-4)
    first = 0
    if (state := load_checkpoint(folder / "vae.pt")) is not None:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    began = time.monotonic()
    for step in range(first, steps):
        # Each step's chances come from its number, so that a resumed run is the same run.
        torch.manual_seed(step)
        pictures = to_tensor(_pictures(random.Random(step), _BATCH)).to(device)
        for group in optimizer.param_groups:
            group["lr"] = half_cosine(step, steps, _PEAK, _WARMUP)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        error = decoded.float() - pictures
        mse, l1, kl = (
            error.square().mean(),
            error.abs().mean(),
            posterior.kl().mean() / posterior.mean[0].numel(),
        )
        optimizer.zero_grad(set_to_none=True)
        (mse + _L1 * l1 + _KL * kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            rate = (step + 1 - first) * _BATCH / (time.monotonic() - began)
            log(folder, "vae", step=step + 1, mse=mse.item(), l1=l1.item(), kl=kl.item(), per_s=rate)
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            save_checkpoint(folder / "vae.pt", state)
        if (step + 1) % _LOOK_EVERY == 0 or step + 1 == steps:
            log(folder, "vae", step=step + 1, gate=gate(vae, 100))
    return vae


def finished_vae(folder: Path, device: torch.device, gated: bool = True) -> AutoencoderKL:
    """The folder's VAE, its latents brought to mean 0 and variance 1, once it has passed the gate.

    Raises SystemExit, with the share that the checker reads, when that is under 98 %: a UNet could only paint
    as badly as its VAE decodes.
    """
    state = load_checkpoint(folder / "vae.pt")
    if state is None:
        raise SystemExit(f"{folder}: holds no vae.pt: run the stage vae first")
    vae = build_vae()
    vae.load_state_dict(state["vae"])
    vae = vae.to(device).eval().requires_grad_(False)
    if gated and (share := gate(vae, 500)) < GATE:
        raise SystemExit(
            f"{folder}: the checker reads {share:.1%} of the VAE's reconstructions: train it longer"
        )
    rng = random.Random("spread")
    things = pairs(held_out=False)
    normalise(vae, encode(vae, [random_scene(rng.choice(KINDS), rng, things) for _ in range(1024)], seed=0))
    return vae


@torch.no_grad()
def gate(vae: AutoencoderKL, count: int) -> float:
    """The share of `count` reconstructions of fresh drawings that the checker reads wholly right."""
    rng = random.Random("gate")
    things = pairs(held_out=False) + pairs(held_out=True)
    scenes = [random_scene(rng.choice(KINDS), rng, things) for _ in range(count)]
    right = 0
    for start in range(0, count, 50):
        part = scenes[start : start + 50]
        pictures = to_tensor([draw(scene, rng) for scene in part]).to(vae.device)
        decoded = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
        right += sum(
            checker.shows(checker.read(image), scene)
            for image, scene in zip(to_images(decoded), part, strict=True)
        )
    return right / count


def to_tensor(images: list[Image.Image]) -> torch.Tensor:
    """RGB images as float32 [B,3,H,W], -1 .. 1."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def to_images(pictures: torch.Tensor) -> list[Image.Image]:
    """RGB images of float [B,3,H,W], -1 .. 1."""
    pixels = ((pictures.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


def _pictures(rng: random.Random, count: int) -> list[Image.Image]:
    things = pairs(held_out=False) + pairs(held_out=True)
    return [
        draw_crowd(rng) if rng.random() < _CROWDS else draw(random_scene(rng.choice(KINDS), rng, things), rng)
        for _ in range(count)
    ]


@torch.no_grad()
def encode(vae: AutoencoderKL, scenes: list[Scene], seed: int) -> torch.Tensor:
    """Latents of drawings of `scenes`, samples of the encoder's posteriors: float32 [N,C,h,w], on the CPU."""
    rng = random.Random(seed)
    generator = torch.Generator(vae.device).manual_seed(seed)
    parts = []
    for start in range(0, len(scenes), 64):
        pictures = to_tensor([draw(scene, rng) for scene in scenes[start : start + 64]]).to(vae.device)
        with torch.autocast(vae.device.type, torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
        parts.append(posterior.sample(generator).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def normalise(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Fold each channel's mean and spread over `latents` into the VAE, in place, for good.

    Afterwards its latents times its scaling factor have mean 0 and variance 1, as pipelines expect, and it
    decodes to the pictures it decoded to before.
    """
    count = latents.shape[1]
    mean = latents.mean(dim=(0, 2, 3)).to(vae.device)
    spread = latents.std(dim=(0, 2, 3)).to(vae.device) * vae.config.scaling_factor
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:count] /= spread[:, None, None, None]
    quant.bias[:count] = (quant.bias[:count] - mean) / spread
    quant.bias[count:] -= 2 * spread.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= spread[None, :, None, None]
