"""Trains the UNet and the text encoder together on latents of drawings, and watches what they paint."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.shapes.grammar import KINDS, Scene, loosened, pairs, prompt_of, random_scene
from tools.shapes.networks import build_scheduler, build_text_encoder, build_unet
from tools.shapes.progress import (
    changed,
    digest,
    load_checkpoint,
    log,
    rewind_log,
    save_checkpoint,
    say,
    trapezoid,
)
from tools.shapes.score import fresh_scenes, paint, score
from tools.shapes.train_vae import encode

_PEAK, _WARMUP, _DECAY = 1e-3, 300, 0.3
_DROPPED, _LOOSENED = 0.1, 0.15
"""Shares of training prompts that are empty (for guidance), and that leave something open."""
_EMA = 0.998
_WEIGHTS = (45, 20, 20, 15)
"""How common each of the grammar's kinds is, in its order."""
_HARD = "places"
_COURSE: Final[tuple[tuple[int, dict[str, float]], ...]] = (
    (0, {}),
    (2500, {_HARD: 0.5}),
    (3700, {_HARD: 0.3125, "count": 0.25}),
)
"""From a step on, shares of each batch that are of one kind: what is learned last gets more room later."""
_LOOK_AT = 32


@dataclass(frozen=True, slots=True)
class Lessons:
    """What the UNet learns from: scenes, and latents of their drawings."""

    latents: torch.Tensor
    """float32 [N,C,h,w], times the VAE's scaling factor, on the CPU."""
    scenes: list[Scene]
    mixed: int
    """The first so many are of all kinds, in their usual shares; the rest are of the hard kind alone."""
    made_from: dict[str, str]


def make_lessons(vae: AutoencoderKL, folder: Path, mixed: int, hard: int) -> Lessons:
    """`mixed` scenes of all kinds, `hard` more of the hard one, and latents of them from the gated VAE.

    The folder's latents.pt keeps the latents; with another VAE or other scenes they are made again.
    """
    rng, path = random.Random("scenes"), folder / "latents.pt"
    things = pairs(held_out=False)
    scenes = [random_scene(rng.choices(KINDS, _WEIGHTS)[0], rng, things) for _ in range(mixed)]
    scenes += [random_scene(_HARD, rng, things) for _ in range(hard)]
    made_from = {"VAE": digest(*vae.state_dict().values()), "set of scenes": digest(repr(scenes))}
    kept = load_checkpoint(path)
    if kept is not None and not (another := changed(kept, made_from)):
        say("latents", f"{path} is there: skipped")
    else:
        say(
            "latents", f"of {len(scenes)} drawings" if kept is None else f"made again: {path} is of {another}"
        )
        kept = {"latents": encode(vae, scenes, seed=1) * vae.config.scaling_factor, "made_from": made_from}
        save_checkpoint(path, kept)
    return Lessons(kept["latents"], scenes, mixed, made_from)


def train_unet(
    vae: AutoencoderKL,
    tokenizer: Any,
    lessons: Lessons,
    folder: Path,
    steps: int,
    device: torch.device,
    batch: int = 64,
    save_every: int = 100,
    look_every: int = 500,
) -> None:
    """Train UNet and text encoder for `steps` in all, on from the folder's unet.pt, and keep them there.

    A run that was stopped and goes on gives the same weights bit for bit, on a CPU with as many threads.
    Every `look_every` steps the averaged weights paint fresh prompts by way of `vae`; the log gets the shares
    that are right. Raises SystemExit when unet.pt was trained with another VAE, tokenizer or set of scenes.
    """
    path = folder / "unet.pt"
    made_from = lessons.made_from | {"tokenizer": digest(json.dumps(tokenizer.get_vocab(), sort_keys=True))}
    state = load_checkpoint(path)
    if state is not None and (another := changed(state, made_from)):
        raise SystemExit(
            f"{path}: was trained with {another}: bring that back, or remove the file to start again"
        )
    first = 0 if state is None else state["step"]
    if first >= steps:
        say("UNet", f"{path} is there, at step {first}: skipped")
        return
    say("UNet", f"from step {first} to {steps}, {batch} latents each")
    for name in ("unet", "look"):
        rewind_log(folder, name, first)
    torch.manual_seed(1)
    unet, text_encoder = build_unet().to(device).train(), build_text_encoder(tokenizer).to(device).train()
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=_PEAK, betas=(0.9, 0.99), weight_decay=0.01)
    averaged = copy.deepcopy(unet).eval(), copy.deepcopy(text_encoder).eval()
    modules = {"unet": unet, "text": text_encoder, "ema": averaged[0], "ema_text": averaged[1]}
    if state is not None:
        for name, module in modules.items():
            module.load_state_dict(state[name])
        optimizer.load_state_dict(state["optimizer"])
    latents, scenes = lessons.latents, lessons.scenes
    by_kind = {
        kind: torch.tensor([n for n, scene in enumerate(scenes) if scene.kind == kind]) for kind in KINDS
    }
    alphas = build_scheduler().alphas_cumprod.to(device)
    average = [parameter for module in averaged for parameter in module.parameters()]

    began, total, since = time.monotonic(), 0.0, 0
    for step in range(first, steps):
        # Each step's chances come from its number, so that a resumed run is the same run.
        rng = random.Random(step)
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(lessons.mixed, (batch,), generator=generator)
        for kind, share in next(shares for start, shares in reversed(_COURSE) if step >= start).items():
            of_kind = torch.randint(len(by_kind[kind]), (int(share * batch),), generator=generator)
            chosen = torch.cat([by_kind[kind][of_kind], chosen])[:batch]
        prompts = _prompts((scenes[n] for n in chosen.tolist()), rng)
        clean = latents[chosen].to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        # One timestep from each of `batch` equal strata: every batch sees every noise.
        spots = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
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

        # The checkpoint comes last: what a kill keeps out of the logs is done again.
        samples = (step + 1) * batch
        if (step + 1) % look_every == 0:
            shares = look(vae, tokenizer, averaged, _LOOK_AT)
            log(folder, "look", step=step + 1, samples=samples, **shares)
        if (step + 1) % save_every == 0 or step + 1 == steps:
            rate = (step + 1 - first) * batch / (time.monotonic() - began)
            log(folder, "unet", step=step + 1, samples=samples, loss=total / since, per_s=rate)
            total, since = 0.0, 0
            state = {name: module.state_dict() for name, module in modules.items()}
            state |= {"optimizer": optimizer.state_dict(), "step": step + 1, "made_from": made_from}
            save_checkpoint(path, state)


def load_averaged(tokenizer: Any, folder: Path, device: torch.device) -> tuple[Any, Any]:
    """The averaged UNet and text encoder of the folder's checkpoint."""
    state = load_checkpoint(folder / "unet.pt")
    if state is None:
        raise SystemExit(f"{folder / 'unet.pt'}: is not there: train the UNet first")
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    unet.load_state_dict(state["ema"])
    text_encoder.load_state_dict(state["ema_text"])
    return unet.to(device).eval(), text_encoder.to(device).eval()


def look(vae: AutoencoderKL, tokenizer: Any, averaged: tuple[Any, Any], count: int) -> dict[str, float]:
    """The shares, by name, of `count` fresh prompts a kind that the averaged weights paint right."""
    scenes = {kind: fresh_scenes(kind, count, pairs(held_out=False), seed=7) for kind in KINDS}
    prompts = [prompt_of(scene) for part in scenes.values() for scene in part]
    images = iter(paint(vae, tokenizer, *averaged, prompts, guidance=3.0))
    seen = {kind: score(part, list(islice(images, len(part)))) for kind, part in scenes.items()}
    one = seen["one"]
    shares = {"background": one.background, "colour": one.colour, "place": one.place, "shape": one.shape}
    return shares | {f"{kind}_all": seen[kind].all for kind in KINDS}


def _prompts(scenes: Iterable[Scene], rng: random.Random) -> list[str]:
    prompts = []
    for scene in scenes:
        chance = rng.random()
        if chance < _DROPPED:
            prompts.append("")
        else:
            prompts.append(prompt_of(loosened(scene, rng) if chance < _DROPPED + _LOOSENED else scene))
    return prompts
