"""Edge pictures for a ControlNet: white lines one pixel wide on black, as Canny's detector gives them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from tools.shapes.draw import PAINT, PAPER, SIZE, draw, outline
from tools.shapes.grammar import BACKGROUNDS, KINDS, PLACES, SHAPES, Scene, Thing, prompt_of, random_scene
from tools.shapes.ink import covered

_STEEP: Final = 150.0
"""The least slope of an edge: what a step of 37 (of 255) in one channel gives. Paint on paper has 80."""
_FREE: Final = 0.35
"""The share of drawings whose thing stands anywhere, not at one of the nine places."""
_NEAR, _FAR = 14.0, 50.0
"""Between these, in pixels, lies the middle of a thing that stands anywhere."""


@dataclass(frozen=True, slots=True)
class Example:
    """A drawing, and the scene that it shows; a thing that stands anywhere has the place None."""

    image: Image.Image
    scene: Scene


def edges(image: Image.Image) -> Image.Image:
    """The edges of `image`: an RGB picture of the same size, white lines on black.

    Canny's detector without smoothing, with one threshold (J. Canny, PAMI 8, 1986): the slope by Sobel in the
    channel where it is steepest, thinned to its crest. `cv2.Canny(image, 100, 200)` gives nearly the same.
    """
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    across, down = (ndimage.sobel(pixels, axis=axis, mode="nearest") for axis in (1, 0))
    steepest = (np.abs(across) + np.abs(down)).argmax(axis=-1)[..., None]
    across, down = (np.take_along_axis(slope, steepest, axis=-1)[..., 0] for slope in (across, down))
    slope = np.abs(across) + np.abs(down)
    # The two neighbours that lie uphill and downhill, by the nearest of four directions.
    turn = np.round(np.arctan2(down, across) / (np.pi / 4)).astype(int) % 4
    padded = np.pad(slope, 1)
    height, width = slope.shape
    crest = np.zeros(slope.shape, dtype=bool)
    for number, (x, y) in enumerate(((1, 0), (1, 1), (0, 1), (-1, 1))):
        ahead = padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]
        behind = padded[1 - y : 1 - y + height, 1 - x : 1 - x + width]
        # Of two equal neighbours only one is the crest.
        crest |= (turn == number) & (slope > ahead) & (slope >= behind)
    lines = (crest & (slope >= _STEEP)).astype(np.uint8) * 255
    return Image.fromarray(lines).convert("RGB")


def example(rng: random.Random, things: list[tuple[str, str]]) -> Example:
    """A drawing of a scene of any kind, or of one thing anywhere; `things` as in `random_scene`."""
    if rng.random() < _FREE:
        return _anywhere(rng, things)
    scene = random_scene(rng.choices(KINDS, (55, 15, 10, 20))[0], rng, things)
    return Example(draw(scene, rng), scene)


def open_prompt(scene: Scene) -> str:
    """A prompt that names neither forms nor places where it need not: "a red shape on a pink background".

    Two things of different colours keep their places, or nothing would say which is which.
    """
    alone = scene.kind == "one"
    bare = tuple(replace(thing, shape=None, place=None if alone else thing.place) for thing in scene.things)
    return prompt_of(replace(scene, things=bare))


def false_prompt(scene: Scene, rng: random.Random) -> str:
    """A prompt with the colours of `scene` and with other forms, and with another place for a lone thing."""
    forms = {shape: rng.choice([s for s in SHAPES if s != shape]) for shape in SHAPES}
    things = [replace(thing, shape=forms[str(thing.shape)]) for thing in scene.things]
    if scene.kind == "one":
        places = [place for place in PLACES if place != scene.things[0].place]
        things = [replace(things[0], place=rng.choice(places))]
    return prompt_of(replace(scene, things=tuple(things)))


def overlap(image: Image.Image, drawing: Image.Image) -> float:
    """Intersection over union, 0 .. 1, of where `image` and `drawing` have things."""
    painted, wanted = covered(image), covered(drawing)
    return float((painted & wanted).sum() / np.maximum(1, (painted | wanted).sum()))


def _anywhere(rng: random.Random, things: list[tuple[str, str]]) -> Example:
    (colour, shape), background = rng.choice(things), rng.choice(BACKGROUNDS)
    fine = 4
    image = Image.new("RGB", (SIZE * fine, SIZE * fine), PAPER[background])
    x, y = (rng.uniform(_NEAR, _FAR) for _ in range(2))
    polygon = outline(shape, x, y, rng.uniform(10.0, 16.0), rng.uniform(-10.0, 10.0))
    ImageDraw.Draw(image).polygon([(u * fine, v * fine) for u, v in polygon], PAINT[colour])
    return Example(image.reduce(fine), Scene((Thing(colour, shape, None),), background))
