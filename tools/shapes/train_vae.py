"""Trains the VAE on drawings, and gates it: the checker must read its reconstructions."""

from __future__ import annotations

import random
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image

from tools.shapes import checker
from tools.shapes.draw import draw, draw_crowd
from tools.shapes.grammar import KINDS, Scene, pairs, random_scene
from tools.shapes.networks import build_vae, to_images, to_tensor
from tools.shapes.progress import (
    changed,
    digest,
    half_cosine,
    load_checkpoint,
    log,
    rewind_log,
    save_checkpoint,
    say,
)

GATE = 0.98
"""The share of reconstructions that the checker must read wholly right before the UNet may start."""

_PEAK, _WARMUP = 2e-3, 100
_CROWDS = 0.6
"""The share of training pictures with a thing in each corner: more edges a picture."""
_L1, _KL = 0.5, 5e-5


def train_vae(
    folder: Path,
    steps: int,
    device: torch.device,
    batch: int = 16,
    save_every: int = 100,
    look_every: int = 500,
) -> None:
    """Train for `steps` in all, on from the folder's vae.pt where there is one, and keep the VAE there.

    A run that was stopped and goes on gives the same weights bit for bit, on a CPU with as many threads.
    Raises SystemExit when a UNet was trained on what the VAE gave so far: there is no way back to it.
    """
    path = folder / "vae.pt"
    state = load_checkpoint(path)
    first = 0 if state is None else state["step"]
    if first >= steps:
        say("VAE", f"{path} is there, at step {first}: skipped")
        return
    if state is not None and (unet := folder / "unet.pt").exists():
        raise SystemExit(
            f"{unet}: needs the VAE of step {first}: remove it first, or give --vae-steps {first}"
        )
    say("VAE", f"from step {first} to {steps}, {batch} pictures each")
    rewind_log(folder, "vae", first)
    torch.manual_seed(0)
    vae = build_vae().to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=_PEAK, weight_decay=1e-4)
    if state is not None:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
    began = time.monotonic()
    for step in range(first, steps):
        # Each step's chances come from its number, so that a resumed run is the same run.
        torch.manual_seed(step)
        pictures = to_tensor(_pictures(random.Random(step), batch)).to(device)
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

        # The checkpoint comes last: what a kill keeps out of the log is done again.
        if (step + 1) % look_every == 0:
            log(folder, "vae", step=step + 1, gate=gate(vae, 100))
        if (step + 1) % save_every == 0 or step + 1 == steps:
            rate = (step + 1 - first) * batch / (time.monotonic() - began)
            log(folder, "vae", step=step + 1, mse=mse.item(), l1=l1.item(), kl=kl.item(), per_s=rate)
            state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            save_checkpoint(path, state)


def gated_vae(folder: Path, device: torch.device, count: int, allow_bad: bool = False) -> AutoencoderKL:
    """The folder's VAE, its latents brought to mean 0 and variance 1, once it has passed the gate.

    It is read, and its latents are measured, on `count` drawings; the folder's gate.pt keeps it as it comes
    out. Raises SystemExit, with the share that the checker reads, when that is under 98 %: a UNet could only
    paint as badly as its VAE decodes. `allow_bad` lets it through.
    """
    trained, path = load_checkpoint(folder / "vae.pt"), folder / "gate.pt"
    if trained is None:
        raise SystemExit(f"{folder / 'vae.pt'}: is not there: train the VAE first")
    made_from = {"VAE": digest(*trained["vae"].values()), "number of drawings": str(count)}
    vae = build_vae().to(device).eval().requires_grad_(False)
    kept = load_checkpoint(path)
    if kept is None or changed(kept, made_from):
        vae.load_state_dict(trained["vae"])
        share = gate(vae, count)
        rng = random.Random("spread")
        things = pairs(held_out=False)
        scenes = [random_scene(rng.choice(KINDS), rng, things) for _ in range(count)]
        normalise(vae, encode(vae, scenes, seed=0))
        kept = {"vae": vae.state_dict(), "share": share, "made_from": made_from}
        save_checkpoint(path, kept)
        skipped = ""
    else:
        vae.load_state_dict(kept["vae"])
        skipped = f"{path} is there: skipped; "
    share = kept["share"]
    say("gate", f"{skipped}the checker reads {share:.1%} of {count} reconstructions")
    if share < GATE and not allow_bad:
        raise SystemExit(f"{folder / 'vae.pt'}: the checker must read {GATE:.0%}: train the VAE longer")
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
