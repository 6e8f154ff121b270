"""Counts how much of their prompts pictures show."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from tools.shapes import checker
from tools.shapes.grammar import Scene, random_scene
from tools.shapes.networks import LATENT_CHANNELS, LATENT_SIZE, build_scheduler, to_images


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
    """How much of `scenes` their pictures show, as the checker reads them."""
    return score_readings(scenes, [checker.read(image) for image in images])


def score_readings(scenes: Sequence[Scene], readings: Sequence[checker.Reading]) -> Score:
    """How much of `scenes` the checker read.

    A colour, place or shape counts as right when the picture has as many things as were asked for and, among
    theirs, every one that was asked for: which thing has which is what `all` asks. What a scene leaves open
    may be any of the small world's.
    """
    rights = []
    for scene, reading in zip(scenes, readings, strict=True):
        parts = [_has(reading, scene, part) for part in ("colour", "place", "shape")]
        rights.append([checker.background_right(reading, scene), *parts, checker.shows(reading, scene)])
    return Score(*(sum(column) / len(rights) for column in zip(*rights, strict=True)))


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, 0 .. 1, seen among `count`: at 0 and 1 it still has a width.

    Wilson's score interval (E. B. Wilson, JASA 22, 1927; without correction for continuity).
    """
    z = 1.959964
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = (middle - reach) / (1 + z * z / count), (middle + reach) / (1 + z * z / count)
    return max(0.0, low), min(1.0, high)


def _has(reading: checker.Reading, scene: Scene, part: str) -> bool:
    seen = [getattr(thing, part) for thing in reading.things]
    asked = [getattr(thing, part) for thing in scene.things]
    named = Counter(value for value in asked if value is not None)
    return len(seen) == len(asked) and None not in seen and named <= Counter(seen)


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
