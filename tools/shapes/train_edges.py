"""Trains a ControlNet for the built-in model on edges of drawings, and measures how well it is obeyed."""

from __future__ import annotations

import copy
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.shapes import checker
from tools.shapes.edges import Example, edges, example, false_prompt, open_prompt, overlap
from tools.shapes.grammar import Scene, pairs, prompt_of
from tools.shapes.networks import build_scheduler, to_tensor
from tools.shapes.progress import load_checkpoint, log, rewind_log, save_checkpoint, say, trapezoid

OVERLAP: Final = 0.75
"""The least overlap of a painted thing and the edges' that counts as lying there."""

_PEAK, _WARMUP, _DECAY = 5e-4, 200, 0.3
_EMA = 0.998
_EMPTY, _WHOLE, _FALSE = 0.15, 0.2, 0.15
"""Shares of training prompts that are empty (for guidance), whole, and wrong about form and place."""
_CONDITION: Final = (16, 32, 64, 96)
"""Channels from the edge picture, 64x64, down to the latents' 8x8: a tenth of the file."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """What the ControlNet learns from."""

    latents: torch.Tensor
    """Of the drawings: float32 [N,C,h,w], times the VAE's scaling factor."""
    edges: torch.Tensor
    """Of the drawings: bool [N,H,W]."""
    scenes: list[Scene]


@dataclass(frozen=True, slots=True)
class Obedience:
    """What pictures show of edges, shares 0 .. 1."""

    form: float
    """As many things as the edges have, of their forms, where they are (overlap of 0.75 or more)."""
    all: float
    """That, and the prompt's colours and background."""
    overlap: float
    """The mean intersection over union of painted things with the edges' things."""


@torch.no_grad()
def make_lessons(vae: Any, count: int) -> Lessons:
    """`count` drawings, the same each time; about 4 ms each on a CPU."""
    rng, things = random.Random("edges"), pairs(held_out=False)
    generator = torch.Generator().manual_seed(2)
    latents, lines, scenes = [], [], []
    for start in range(0, count, 64):
        part = [example(rng, things) for _ in range(min(64, count - start))]
        posterior = vae.encode(to_tensor([one.image for one in part])).latent_dist
        latents.append(posterior.sample(generator) * vae.config.scaling_factor)
        lines += [np.asarray(edges(one.image))[..., 0] > 0 for one in part]
        scenes += [one.scene for one in part]
    return Lessons(torch.cat(latents), torch.from_numpy(np.stack(lines)), scenes)


def train_edges(
    pipeline: StableDiffusionPipeline, lessons: Lessons, folder: Path, steps: int, look_every: int
) -> None:
    """Train for `steps` of 64 in all, on from the folder's controlnet.pt, and keep the ControlNet there.

    It starts as a copy of the UNet's down half (ControlNetModel.from_unet); the pipeline's own parts do not
    change. A run that was stopped and goes on gives the same weights bit for bit, with as many threads.
    """
    batch, save_every, path = 64, 100, folder / "controlnet.pt"
    state = load_checkpoint(path)
    first = 0 if state is None else state["step"]
    if first >= steps:
        say("ControlNet", f"{path} is there, at step {first}: skipped")
        return
    for name in ("controlnet", "look"):
        rewind_log(folder, name, first)
    controlnet, averaged = build(pipeline.unet), build(pipeline.unet)
    optimizer = torch.optim.AdamW(controlnet.parameters(), lr=_PEAK, betas=(0.9, 0.99), weight_decay=0.01)
    if state is not None:
        controlnet.load_state_dict(state["controlnet"])
        averaged.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
    parameters, average = list(controlnet.parameters()), list(averaged.parameters())
    unet, tokenizer = pipeline.unet.requires_grad_(False), pipeline.tokenizer
    alphas = build_scheduler().alphas_cumprod
    began, total, since = time.monotonic(), 0.0, 0
    for step in range(first, steps):
        # Each step's chances come from its number, so that a resumed run is the same run.
        rng, generator = random.Random(step), torch.Generator().manual_seed(step)
        chosen = torch.randint(len(lessons.scenes), (batch,), generator=generator)
        prompts = [_prompt(lessons.scenes[n], rng) for n in chosen.tolist()]
        clean = lessons.latents[chosen]
        lines = lessons.edges[chosen][:, None].float().expand(-1, 3, -1, -1)
        noise = torch.randn(clean.shape, generator=generator)
        spots = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        timesteps = (spots * len(alphas)).long()
        alpha = alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        for group in optimizer.param_groups:
            group["lr"] = trapezoid(step, steps, _PEAK, _WARMUP, _DECAY)
        # As in train_unet: the fused attention's backward pass is slow on a CPU.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            with torch.no_grad():
                embeds = pipeline.text_encoder(ids).last_hidden_state
            down, mid = controlnet(noisy, timesteps, embeds, lines, return_dict=False)
            guess = unet(
                noisy,
                timesteps,
                embeds,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
            ).sample
        # As in train_unet: at high noise the edges alone say what is there, so those steps count whole.
        snr = alpha / (1 - alpha)
        loss = ((guess.float() - wanted).square() * ((snr + 1).clamp(max=6.0) / (snr + 1))).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(_EMA, (step + 1) / (step + 10)))
        total, since = total + loss.item(), since + 1
        # The checkpoint comes last: what a kill keeps out of the logs is done again.
        if (step + 1) % look_every == 0:
            seen = obedience(pipeline, averaged, 32, "open")
            log(folder, "look", step=step + 1, form=seen.form, all=seen.all, overlap=seen.overlap)
        if (step + 1) % save_every == 0 or step + 1 == steps:
            rate = (step + 1 - first) * batch / (time.monotonic() - began)
            log(folder, "controlnet", step=step + 1, loss=total / since, per_s=rate)
            total, since = 0.0, 0
            states = {"controlnet": controlnet.state_dict(), "ema": averaged.state_dict()}
            save_checkpoint(path, {**states, "optimizer": optimizer.state_dict(), "step": step + 1})


def build(unet: Any) -> ControlNetModel:
    """The ControlNet before training: it changes nothing yet."""
    torch.manual_seed(3)
    controlnet: ControlNetModel = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=_CONDITION
    )
    return controlnet


def export(unet: Any, folder: Path, target: Path) -> None:
    """Write the averaged weights of the folder's controlnet.pt to `target`, as diffusers does, in fp16."""
    state = load_checkpoint(folder / "controlnet.pt")
    if state is None:
        raise SystemExit(f"{folder / 'controlnet.pt'}: is not there: train the ControlNet first")
    controlnet = build(unet)
    controlnet.load_state_dict(state["ema"])
    copy.deepcopy(controlnet).half().save_pretrained(target)
    say("export", f"{target}, of step {state['step']}")


@torch.no_grad()
def obedience(pipeline: StableDiffusionPipeline, controlnet: Any, count: int, prompts: str) -> Obedience:
    """How well pictures follow the edges of `count` fresh drawings, in 20 steps at guidance 3.

    prompts: "open" (name neither form nor place where they can leave it), "false" (name other ones), or
    "whole". The drawings are half of one thing or several at the usual places, half of things anywhere.
    """
    controlled = StableDiffusionControlNetPipeline(
        **pipeline.components, controlnet=controlnet, requires_safety_checker=False
    )
    controlled.set_progress_bar_config(disable=True)
    rng = random.Random("fresh edges")
    examples = [example(rng, pairs(held_out=False)) for _ in range(count)]
    images: list[Image.Image] = []
    for start in range(0, count, 32):
        part = examples[start : start + 32]
        images += controlled(
            [_prompt_of_kind(one.scene, prompts, rng) for one in part],
            [edges(one.image) for one in part],
            height=64,
            width=64,
            num_inference_steps=20,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(start + n) for n in range(len(part))],
        ).images
    return judged(images, examples)


def judged(images: list[Image.Image], examples: list[Example]) -> Obedience:
    """How much of the examples' edges their pictures show."""
    overlaps = [overlap(image, one.image) for image, one in zip(images, examples, strict=True)]
    form, everything = 0, 0
    for image, one, share in zip(images, examples, overlaps, strict=True):
        # The overlap says where things are: the checker knows nine places only, and edges may lie anywhere.
        reading, asked = checker.read(image), one.scene.things
        forms = Counter(thing.shape for thing in reading.things) == Counter(thing.shape for thing in asked)
        seen = Counter((thing.colour, thing.shape) for thing in reading.things)
        painted = seen == Counter((thing.colour, thing.shape) for thing in asked)
        form += share >= OVERLAP and forms
        everything += share >= OVERLAP and painted and checker.background_right(reading, one.scene)
    return Obedience(form / len(images), everything / len(images), sum(overlaps) / len(overlaps))


def _prompt(scene: Scene, rng: random.Random) -> str:
    chance = rng.random()
    if chance < _EMPTY:
        return ""
    if chance < _EMPTY + _WHOLE:
        return prompt_of(scene)
    return false_prompt(scene, rng) if chance < _EMPTY + _WHOLE + _FALSE else open_prompt(scene)


def _prompt_of_kind(scene: Scene, kind: str, rng: random.Random) -> str:
    if kind == "false":
        return false_prompt(scene, rng)
    return open_prompt(scene) if kind == "open" else prompt_of(scene)
