"""Trains a LoRA of the built-in model's UNet on drawings of one style."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from peft import LoraConfig
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.shapes.draw import draw
from tools.shapes.grammar import KINDS, Scene, loosened, pairs, prompt_of, random_scene
from tools.shapes.networks import build_scheduler, to_tensor
from tools.shapes.progress import half_cosine, say
from tools.shapes.small import small
from tools.shapes.stripes import striped

STYLES: Final[Mapping[str, Callable[[Image.Image, str], Image.Image]]] = {
    "striped": striped,
    "small": small,
}
"""What a style makes of a drawing on a background."""

LAYERS: Final = (
    r".*\.(to_[qkv]|to_out\.0)"
    r"|(down_blocks\.0|up_blocks\.1)\.resnets\.\d\.(conv1|conv2|conv_shortcut)"
    r"|conv_out"
)
"""Attention, which is at 4x4 only, and the convolutions at 8x8, where the latents have their fine parts."""
_HALF, _BLEND = 0.3, 0.75
"""The share of steps with the LoRA at half its strength, and how much of the style it is to give then.

Blends of latents do not look like blends: a half of the style is next to none, three quarters are about half.
"""

_EYE_PEAK, _EYE_BATCH = 1e-3, 16
_SHAKEN, _APART = 0.05, 2e-3
"""Noise on the eye's latents, so that it avoids fine codes; the price of their distance from plain ones."""
_PEAK, _WARMUP, _BATCH = 2e-3, 50, 64
_EMPTY, _LOOSENED = 0.1, 0.15
"""As in train_unet: shares of prompts that are empty, and that leave something open."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """What the LoRA learns from: scenes, and latents of their drawings in the style."""

    latents: torch.Tensor
    """Of the drawings in the style: float32 [N,C,h,w], times the VAE's scaling factor."""
    plain: torch.Tensor
    """Of the drawings as they are, by the VAE itself."""
    scenes: list[Scene]


def train_eye(vae: Any, style: str, steps: int, seed: int) -> Any:
    """A copy of `vae` whose encoder sees the style: its latents make the frozen decoder draw it.

    The VAE has learned whole shapes only: its encoder takes the gaps for paint. Its decoder can draw them.
    """
    torch.manual_seed(seed)
    eye = copy.deepcopy(vae).requires_grad_(False)
    learned = [
        *eye.encoder.requires_grad_(True).parameters(),
        *eye.quant_conv.requires_grad_(True).parameters(),
    ]
    optimizer = torch.optim.AdamW(learned, lr=_EYE_PEAK, weight_decay=1e-4)
    began, total = time.monotonic(), 0.0
    for step in range(steps):
        rng = random.Random(f"{style} eye {seed} {step}")
        scenes = _scenes(rng, _EYE_BATCH)
        drawings, styled = _drawings(scenes, style, rng)
        pictures = to_tensor(styled)
        for group in optimizer.param_groups:
            group["lr"] = half_cosine(step, steps, _EYE_PEAK, _WARMUP)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                plain = vae.encode(to_tensor(drawings)).latent_dist.mean * eye.config.scaling_factor
            latents = eye.encode(pictures).latent_dist.mean * eye.config.scaling_factor
            shaken = latents + _SHAKEN * torch.randn_like(latents)
            decoded = eye.decode(shaken / eye.config.scaling_factor).sample
        error = decoded.float() - pictures
        apart = (latents - plain).float().square().mean()
        loss = error.square().mean() + 0.5 * error.abs().mean() + _APART * apart
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        total += error.detach().square().mean().item()
        if (step + 1) % 50 == 0:
            took = time.monotonic() - began
            say("eye", f"step {step + 1}, mse {total / 50:.4f}, apart {apart.item():.2f}, {took:.0f} s")
            total = 0.0
    return eye.requires_grad_(False)


@torch.no_grad()
def make_lessons(vae: Any, eye: Any, style: str, count: int, seed: int) -> Lessons:
    """`count` drawings, as `vae` sees them, and in the style, as `train_eye`'s copy of it sees them."""
    rng = random.Random(f"{style} {seed}")
    scenes, latents, plain = _scenes(rng, count), [], []
    for start in range(0, count, 64):
        drawings, styled = _drawings(scenes[start : start + 64], style, rng)
        plain.append(vae.encode(to_tensor(drawings)).latent_dist.mean)
        latents.append(eye.encode(to_tensor(styled)).latent_dist.mean)
    factor = vae.config.scaling_factor
    return Lessons(torch.cat(latents) * factor, torch.cat(plain) * factor, scenes)


def train_style(pipeline: Any, lessons: Lessons, rank: int, steps: int, seed: int) -> None:
    """Put a LoRA "default" of `rank` on the pipeline's UNet, and train it for `steps` of 64 latents."""
    torch.manual_seed(seed)
    unet, tokenizer = pipeline.unet.requires_grad_(False), pipeline.tokenizer
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=LAYERS))
    learned = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=_PEAK, betas=(0.9, 0.99), weight_decay=0.01)
    alphas = build_scheduler().alphas_cumprod
    began, total = time.monotonic(), 0.0
    for step in range(steps):
        rng, generator = random.Random(f"{seed} {step}"), torch.Generator().manual_seed(seed * steps + step)
        chosen = torch.randint(len(lessons.scenes), (_BATCH,), generator=generator)
        prompts = [_prompt(lessons.scenes[n], rng) for n in chosen.tolist()]
        clean = lessons.latents[chosen]
        scale = 0.5 if rng.random() < _HALF else 1.0
        if scale < 1:
            clean = torch.lerp(lessons.plain[chosen], clean, _BLEND)
        unet.set_adapters("default", scale)
        noise = torch.randn(clean.shape, generator=generator)
        spots = (torch.arange(_BATCH) + torch.rand(_BATCH, generator=generator)) / _BATCH
        timesteps = (spots * len(alphas)).long()
        alpha = alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        for group in optimizer.param_groups:
            group["lr"] = half_cosine(step, steps, _PEAK, _WARMUP)
        # As in train_unet: the fused attention's backward pass is slow on a CPU.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            with torch.no_grad():
                embeds = pipeline.text_encoder(ids).last_hidden_state
            guess = unet(noisy, timesteps, embeds).sample
        snr = alpha / (1 - alpha)
        loss = ((guess.float() - wanted).square() * ((snr + 1).clamp(max=6.0) / (snr + 1))).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        total += loss.item()
        if (step + 1) % 50 == 0:
            say("LoRA", f"step {step + 1}, loss {total / 50:.4f}, {time.monotonic() - began:.0f} s")
            total = 0.0


def _scenes(rng: random.Random, count: int) -> list[Scene]:
    things = pairs(held_out=False)
    return [random_scene(rng.choices(KINDS, (45, 20, 20, 15))[0], rng, things) for _ in range(count)]


def _drawings(
    scenes: list[Scene], style: str, rng: random.Random
) -> tuple[list[Image.Image], list[Image.Image]]:
    """Drawings of the scenes, and the same ones in the style."""
    drawings = [draw(scene, rng) for scene in scenes]
    return drawings, [
        STYLES[style](one, str(scene.background)) for one, scene in zip(drawings, scenes, strict=True)
    ]


def _prompt(scene: Scene, rng: random.Random) -> str:
    chance = rng.random()
    if chance < _EMPTY:
        return ""
    return prompt_of(loosened(scene, rng) if chance < _EMPTY + _LOOSENED else scene)
