"""Trains the UNet and the text encoder together on latents of drawings, and watches what they paint."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.shapes.grammar import Scene, loosened, pairs, prompt_of, random_scene
from tools.shapes.networks import build_scheduler, build_text_encoder, build_unet
from tools.shapes.progress import load_checkpoint, log, save_checkpoint, trapezoid
from tools.shapes.score import fresh_scenes, paint, score
from tools.shapes.train_vae import encode

BATCH = 64
_PEAK, _WARMUP, _DECAY = 1e-3, 300, 0.3
_DROPPED, _LOOSENED = 0.1, 0.15
"""Shares of training prompts that are empty (for guidance), and that leave something open."""
_EMA = 0.998
_KINDS, _WEIGHTS = ("one", "places", "relation", "count"), (45, 20, 20, 15)
_HARD = "places"
_COURSE: Final[tuple[tuple[int, dict[str, int]], ...]] = (
    (0, {}),
    (2500, {_HARD: 32}),
    (3700, {_HARD: 20, "count": 16}),
)
"""From a step on, how many of each batch are of one kind: what is learned last gets more room later."""
_SAVE_EVERY, _LOOK_EVERY, _LOOK_AT = 100, 500, 32


def make_latents(vae: AutoencoderKL, folder: Path, count: int, hard: int) -> tuple[torch.Tensor, list[Scene]]:
    """Latents [N,C,h,w], times the scaling factor, and scenes: `count` of all kinds, and `hard` more.

    The hard ones come last: two things at places of their own. Cached in the folder.
    """
    rng = random.Random("scenes")
    things = pairs(held_out=False)
    scenes = [random_scene(rng.choices(_KINDS, _WEIGHTS)[0], rng, things) for _ in range(count)]
    hard_scenes = [random_scene(_HARD, rng, things) for _ in range(hard)]
    parts = []
    for name, part, seed in (("latents.pt", scenes, 1), ("hard_latents.pt", hard_scenes, 2)):
        cached = load_checkpoint(folder / name)
        if cached is None or len(cached["latents"]) != len(part):
            cached = {"latents": encode(vae, part, seed) * vae.config.scaling_factor}
            save_checkpoint(folder / name, cached)
        parts.append(cached["latents"])
    return torch.cat(parts), scenes + hard_scenes


def train_unet(
    vae: AutoencoderKL,
    tokenizer: Any,
    latents: torch.Tensor,
    scenes: list[Scene],
    count: int,
    folder: Path,
    steps: int,
    device: torch.device,
) -> tuple[Any, Any]:
    """The averaged UNet and text encoder, trained for `steps` in all, from the folder's checkpoint if any.

    The first `count` scenes are of all kinds, in their usual shares; the rest are of the hard kind alone.
    Every few hundred steps the averaged weights paint fresh prompts; the log gets the shares that are right.
    """
    torch.manual_seed(1)
    unet, text_encoder = build_unet().to(device).train(), build_text_encoder(tokenizer).to(device).train()
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=_PEAK, betas=(0.9, 0.99), weight_decay=0.01)
    averaged = copy.deepcopy(unet).eval(), copy.deepcopy(text_encoder).eval()
    first = 0
    if (state := load_checkpoint(folder / "unet.pt")) is not None:
        for module, name in (
            (unet, "unet"),
            (text_encoder, "text"),
            (averaged[0], "ema"),
            (averaged[1], "ema_text"),
        ):
            module.load_state_dict(state[name])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    by_kind = {
        kind: torch.tensor([n for n, scene in enumerate(scenes) if scene.kind == kind]) for kind in _KINDS
    }
    alphas = build_scheduler().alphas_cumprod.to(device)
    average = [parameter for module in averaged for parameter in module.parameters()]

    began, total, since = time.monotonic(), 0.0, 0
    for step in range(first, steps):
        # Each step's chances come from its number, so that a resumed run is the same run.
        rng = random.Random(step)
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(count, (BATCH,), generator=generator)
        for kind, share in next(shares for start, shares in reversed(_COURSE) if step >= start).items():
            of_kind = torch.randint(len(by_kind[kind]), (share,), generator=generator)
            chosen = torch.cat([by_kind[kind][of_kind], chosen[:-share]])
        prompts = _prompts((scenes[n] for n in chosen.tolist()), rng)
        clean = latents[chosen].to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        # One timestep from each of BATCH equal strata: every batch sees every noise.
        spots = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
        timesteps = (spots * len(alphas)).long().to(device)
        alpha = alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(
            device
        )
        for group in optimizer.param_groups:
            group["lr"] = trapezoid(step, steps, _PEAK, _WARMUP, _DECAY)
        # The fused attention's backward pass takes 40 % of a step on a CPU; the plain one next to nothing.
        with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            embeds = text_encoder(ids).last_hidden_state
            guess = unet(noisy, timesteps, embeds).sample
        # An error in v counts as SNR + 1 times one in the clean latents; that weight is held within 1 and 6.
        # At high noise the words alone must say what is there, so those steps keep their full weight.
        snr = alpha / (1 - alpha)
        loss = ((guess.float() - wanted).square() * ((snr + 1).clamp(max=6.0) / (snr + 1))).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(_EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - decay)
        total, since = total + loss.item(), since + 1

        if (step + 1) % 50 == 0:
            rate = (step + 1 - first) * BATCH / (time.monotonic() - began)
            log(folder, "unet", samples=(step + 1) * BATCH, loss=total / since, per_s=rate)
            total, since = 0.0, 0
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            state = {
                "unet": unet.state_dict(),
                "text": text_encoder.state_dict(),
                "ema": averaged[0].state_dict(),
            }
            state |= {
                "ema_text": averaged[1].state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            save_checkpoint(folder / "unet.pt", state)
        if (step + 1) % _LOOK_EVERY == 0 or step + 1 == steps:
            look(vae, tokenizer, averaged, folder, (step + 1) * BATCH)
    return averaged


def load_averaged(tokenizer: Any, folder: Path, device: torch.device) -> tuple[Any, Any]:
    """The averaged UNet and text encoder of the folder's checkpoint."""
    state = load_checkpoint(folder / "unet.pt")
    if state is None:
        raise SystemExit(f"{folder}: holds no unet.pt: run the stage unet first")
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    unet.load_state_dict(state["ema"])
    text_encoder.load_state_dict(state["ema_text"])
    return unet.to(device).eval(), text_encoder.to(device).eval()


def look(vae: AutoencoderKL, tokenizer: Any, averaged: tuple[Any, Any], folder: Path, samples: int) -> None:
    """Log the shares of a few fresh prompts that the averaged weights paint right."""
    scenes = {kind: fresh_scenes(kind, _LOOK_AT, pairs(held_out=False), seed=7) for kind in _KINDS}
    prompts = [prompt_of(scene) for part in scenes.values() for scene in part]
    images = iter(paint(vae, tokenizer, *averaged, prompts, guidance=3.0))
    seen = {kind: score(part, list(islice(images, len(part)))) for kind, part in scenes.items()}
    one = seen["one"]
    shares = {"background": one.background, "colour": one.colour, "place": one.place, "shape": one.shape}
    log(folder, "look", samples=samples, **shares, **{f"{kind}_all": seen[kind].all for kind in _KINDS})


def _prompts(scenes: Iterable[Scene], rng: random.Random) -> list[str]:
    prompts = []
    for scene in scenes:
        chance = rng.random()
        if chance < _DROPPED:
            prompts.append("")
        else:
            prompts.append(prompt_of(loosened(scene, rng) if chance < _DROPPED + _LOOSENED else scene))
    return prompts
