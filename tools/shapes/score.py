"""Counts how much of their prompts pictures show."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from tools.shapes import checker
from tools.shapes.grammar import Scene, random_scene
from tools.shapes.networks import LATENT_CHANNELS, LATENT_SIZE, build_scheduler
from tools.shapes.train_vae import to_images


@dataclass(frozen=True, slots=True)
class Score:
    """Shares, 0 .. 1, of pictures with the right background, colours, places, shapes, or all of it right."""

    background: float
    colour: float
    place: float
    shape: float
    all: float


def fresh_scenes(kind: str, count: int, things: list[tuple[str, str]], seed: int) -> list[Scene]:
    """`count` scenes of a kind, the same for the same seed."""
    rng = random.Random(f"{kind} {seed}")
    return [random_scene(kind, rng, things) for _ in range(count)]


def score(scenes: Sequence[Scene], images: Sequence[Image.Image]) -> Score:
    """How much of `scenes` their pictures show, as the checker reads them.

    A colour, place or shape counts as right when all of the picture's things have the ones that were asked
    for, as a collection: which thing has which is what `all` asks.
    """
    seen = [checker.read(image) for image in images]
    rights = []
    for scene, reading in zip(scenes, seen, strict=True):
        same = [
            sorted(str(getattr(thing, part)) for thing in scene.things)
            == sorted(str(getattr(thing, part)) for thing in reading.things)
            for part in ("colour", "place", "shape")
        ]
        rights.append([checker.background_right(reading, scene), *same, checker.shows(reading, scene)])
    return Score(*(sum(column) / len(rights) for column in zip(*rights, strict=True)))


@torch.no_grad()
def paint(
    vae: Any,
    tokenizer: Any,
    unet: Any,
    text_encoder: Any,
    prompts: list[str],
    guidance: float,
    steps: int = 20,
) -> list[Image.Image]:
    """A picture of each prompt, by DDIM, in batches of 32, from seeds 0, 1, 2 …; the models as they are."""
    device = unet.device
    images = []
    for start in range(0, len(prompts), 32):
        texts = prompts[start : start + 32]
        ids = tokenizer(
            [""] * len(texts) + texts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        embeds = text_encoder(ids.to(device)).last_hidden_state
        x = torch.stack(
            [
                torch.randn(
                    LATENT_CHANNELS,
                    LATENT_SIZE,
                    LATENT_SIZE,
                    generator=torch.Generator().manual_seed(start + n),
                )
                for n in range(len(texts))
            ]
        ).to(device)
        scheduler = build_scheduler()
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            rows = torch.cat([x, x])
            without, with_text = unet(rows, t.expand(len(rows)).to(device), embeds).sample.chunk(2)
            x = scheduler.step(without + guidance * (with_text - without), t, x).prev_sample
        images += to_images(vae.decode(x / vae.config.scaling_factor).sample)
    return images
