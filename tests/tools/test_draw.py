from __future__ import annotations

import random

import numpy as np
import pytest

from tools.shapes.draw import PAINT, PAPER, draw, draw_crowd
from tools.shapes.grammar import BACKGROUNDS, COLOURS, PLACES, SHAPES, Scene, Thing, pairs, random_scene


def test_a_drawing_is_the_same_for_the_same_chances_and_another_for_others() -> None:
    scene = Scene((Thing("red", "star", "in the middle"),), "white")
    first = draw(scene, random.Random(1))
    assert first.size == (64, 64)
    assert first.mode == "RGB"
    assert first.tobytes() == draw(scene, random.Random(1)).tobytes()
    assert first.tobytes() != draw(scene, random.Random(2)).tobytes()


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_paint_and_paper_have_exactly_their_colours(colour: str, background: str) -> None:
    pixels = np.asarray(
        draw(Scene((Thing(colour, "square", "in the middle"),), background), random.Random(0))
    )
    assert tuple(pixels[32, 32]) == PAINT[colour]
    assert tuple(pixels[2, 2]) == PAPER[background]


@pytest.mark.parametrize("shape", SHAPES)
def test_things_stand_where_they_should_and_stay_inside_the_picture(shape: str) -> None:
    rng = random.Random(0)
    for place, (column, row) in PLACES.items():
        pixels = np.asarray(draw(Scene((Thing("black", shape, place),), "white"), rng)).mean(axis=-1)
        ys, xs = np.nonzero(pixels < 128)
        assert abs(xs.mean() - (16, 32, 48)[column]) < 5
        assert abs(ys.mean() - (16, 32, 48)[row]) < 5
        assert len(xs) > 200


def test_edges_are_smooth() -> None:
    pixels = np.asarray(draw(Scene((Thing("black", "circle", "in the middle"),), "white"), random.Random(0)))
    between = (pixels[..., 0] > 60) & (pixels[..., 0] < 220)
    assert 20 < np.count_nonzero(between) < 200


def test_what_a_scene_leaves_open_is_drawn_by_chance() -> None:
    rng = random.Random(0)
    assert len({draw(Scene((Thing("red", None, None),), None), rng).tobytes() for _ in range(10)}) == 10


def test_equal_things_of_a_count_stay_equal_where_their_colour_is_open() -> None:
    scene = random_scene("count", random.Random(3), pairs(held_out=False))
    open_things = tuple(Thing(None, thing.shape, thing.place) for thing in scene.things)
    rng = random.Random(0)
    for _ in range(10):
        picture = draw(Scene(open_things, "white", scene.wording), rng)
        colours = picture.getcolors(64 * 64)
        assert colours is not None
        solid = [rgb for count, rgb in colours if count > 100]
        assert len(solid) == 2, "the paper and one paint"


def test_a_crowd_fills_the_corners() -> None:
    pixels = np.asarray(draw_crowd(random.Random(0)), dtype=int)
    paper = pixels[0, 32]
    for y, x in ((16, 16), (16, 48), (48, 16), (48, 48)):
        assert np.abs(pixels[y, x] - paper).sum() > 60
