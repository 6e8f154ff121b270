from __future__ import annotations

import random

import pytest

from tools.shapes.checker import Reading, read
from tools.shapes.draw import draw
from tools.shapes.grammar import KINDS, Scene, Thing, bare, loosened, pairs
from tools.shapes.score import Score, fresh_scenes, score, score_readings, wilson


def test_true_drawings_score_everything_and_shuffled_ones_next_to_nothing() -> None:
    rng = random.Random(0)
    scenes = fresh_scenes("one", 100, pairs(held_out=False), seed=1)
    pictures = [draw(scene, rng) for scene in scenes]
    assert score(scenes, pictures) == Score(1.0, 1.0, 1.0, 1.0, 1.0)
    assert score([*scenes[1:], scenes[0]], pictures).all <= 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_scene_leaves_open_is_right_whatever_it_is(kind: str) -> None:
    rng = random.Random(0)
    scenes = fresh_scenes(kind, 40, pairs(held_out=False), seed=1)
    for open_scenes in ([loosened(scene, rng) for scene in scenes], [bare(scene) for scene in scenes]):
        readings = [read(draw(scene, rng)) for scene in open_scenes]
        assert score_readings(open_scenes, readings) == Score(1.0, 1.0, 1.0, 1.0, 1.0)
        shuffled = score_readings([*open_scenes[1:], open_scenes[0]], readings)
        assert shuffled.shape < 0.7
        assert shuffled.all < 0.4


def test_another_number_of_things_or_one_of_no_known_shape_is_wrong_even_where_all_is_open() -> None:
    scene = Scene((Thing(None, None, None),), None)
    star, blob = Thing("red", "star", "on the left"), Thing("red", None, "on the left")
    assert score_readings([scene], [Reading("white", (star,))]) == Score(1.0, 1.0, 1.0, 1.0, 1.0)
    assert score_readings([scene], [Reading("white", (star, star))]) == Score(1.0, 0.0, 0.0, 0.0, 0.0)
    assert score_readings([scene], [Reading("white", (blob,))]) == Score(1.0, 1.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_wilsons(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right / count, count) == pytest.approx((low, high), abs=5e-5)
    assert wilson(1 - right / count, count) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_pictures_that_swap_two_shapes_have_the_colours_and_shapes_but_are_not_right() -> None:
    rng = random.Random(0)
    scenes = [
        scene
        for scene in fresh_scenes("relation", 200, pairs(held_out=False), seed=1)
        if len({thing.shape for thing in scene.things}) == len({thing.colour for thing in scene.things}) == 2
    ]
    swapped = []
    for scene in scenes:
        first, second = scene.things
        things = (
            Thing(first.colour, second.shape, first.place),
            Thing(second.colour, first.shape, second.place),
        )
        swapped.append(draw(Scene(things, scene.background, scene.wording), rng))
    result = score(scenes, swapped)
    assert (result.colour, result.shape, result.place) == (1.0, 1.0, 1.0)
    assert result.all == 0.0


def test_no_interval_reaches_beyond_nothing_and_all() -> None:
    for count in range(1, 300):
        assert 0 <= wilson(0.0, count)[0] < 1e-9
        assert 1 - 1e-9 < wilson(1.0, count)[1] <= 1


def test_fresh_scenes_are_the_same_for_a_seed_and_others_for_another() -> None:
    things = pairs(held_out=False)
    assert fresh_scenes("places", 20, things, 1) == fresh_scenes("places", 20, things, 1)
    assert fresh_scenes("places", 20, things, 1) != fresh_scenes("places", 20, things, 2)
