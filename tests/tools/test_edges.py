from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tools.shapes.draw import draw
from tools.shapes.edges import edges, example, false_prompt, open_prompt, overlap
from tools.shapes.grammar import KINDS, Scene, Thing, pairs, random_scene, scene_of
from tools.shapes.ink import covered

THINGS = pairs(held_out=False)
RED_STAR = Scene((Thing("red", "star", "on the left"),), "white")


def test_edges_are_white_lines_one_pixel_wide_where_paint_meets_paper() -> None:
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).rectangle((20, 12, 39, 49), fill=(222, 40, 44))
    lines = edges(picture)
    assert (lines.mode, lines.size) == ("RGB", (64, 64))
    pixels = np.asarray(lines)
    assert set(np.unique(pixels)) == {0, 255}
    assert (pixels[..., 0] == pixels[..., 1]).all()
    across, down = (np.flatnonzero(line) for line in (pixels[30, :, 0], pixels[:, 30, 0]))
    assert len(across) == len(down) == 2
    assert np.abs(across - [19.5, 39.5]).max() == np.abs(down - [11.5, 49.5]).max() == 0.5


def test_even_paper_has_no_edges() -> None:
    assert not np.asarray(edges(Image.new("RGB", (64, 64), (186, 188, 192)))).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_edges_of_drawings_run_around_their_things(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(20):
        drawing = draw(random_scene(kind, rng, THINGS), rng)
        lines, things = np.asarray(edges(drawing))[..., 0] > 0, covered(drawing)
        rim = things ^ np.pad(things, 1)[2:, 1:-1] | things ^ np.pad(things, 1)[1:-1, 2:]
        near = sum(np.roll(lines, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1))
        # The picture's own border is no edge, and a star's tips are finer than a pixel.
        inner = rim[2:-2, 2:-2]
        assert (near[2:-2, 2:-2] > 0)[inner].mean() > 0.9
        assert lines.sum() < 2 * rim.sum()


def test_a_drawing_overlaps_itself_wholly_and_a_thing_elsewhere_not_at_all() -> None:
    here, there = (
        draw(Scene((Thing("red", "star", place),), "white"), random.Random(0))
        for place in ("on the left", "on the right")
    )
    assert overlap(here, here) == 1.0
    assert overlap(here, there) == 0.0
    assert overlap(here, Image.new("RGB", (64, 64), (250, 250, 250))) == 0.0


def test_an_open_prompt_names_neither_form_nor_place_of_a_lone_thing() -> None:
    assert open_prompt(RED_STAR) == "a red shape on a white background"
    two = scene_of("a red star left of a blue circle on a pink background")
    assert open_prompt(two) == "a red shape left of a blue shape on a pink background"


def test_a_false_prompt_keeps_the_colours_and_names_other_forms_and_another_place() -> None:
    rng = random.Random(0)
    for _ in range(30):
        (thing,) = scene_of(false_prompt(RED_STAR, rng)).things
        assert thing.colour == "red"
        assert thing.shape != "star"
        assert thing.place not in (None, "on the left")
    kinds = {thing.shape for thing in scene_of(false_prompt(scene_of("two red stars"), rng)).things}
    assert len(kinds) == 1
    assert kinds != {"star"}


def test_examples_are_the_same_for_a_seed_and_some_stand_anywhere() -> None:
    first, again = ([example(random.Random(seed), THINGS) for seed in range(40)] for _ in range(2))
    assert [one.scene for one in first] == [one.scene for one in again]
    assert [one.image.tobytes() for one in first] == [one.image.tobytes() for one in again]
    anywhere = [one for one in first if one.scene.things[0].place is None]
    assert 5 < len(anywhere) < 25
    assert all(covered(one.image).sum() > 80 for one in first)
