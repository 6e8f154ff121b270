from __future__ import annotations

import random

from tools.shapes.draw import draw
from tools.shapes.grammar import pairs
from tools.shapes.score import Score, fresh_scenes, score


def test_true_drawings_score_everything_and_shuffled_ones_next_to_nothing() -> None:
    rng = random.Random(0)
    scenes = fresh_scenes("one", 100, pairs(held_out=False), seed=1)
    pictures = [draw(scene, rng) for scene in scenes]
    assert score(scenes, pictures) == Score(1.0, 1.0, 1.0, 1.0, 1.0)
    assert score([*scenes[1:], scenes[0]], pictures).all <= 0.02


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
            type(first)(first.colour, second.shape, first.place),
            type(first)(second.colour, first.shape, second.place),
        )
        swapped.append(draw(type(scene)(things, scene.background, scene.wording), rng))
    result = score(scenes, swapped)
    assert (result.colour, result.shape, result.place) == (1.0, 1.0, 1.0)
    assert result.all == 0.0


def test_fresh_scenes_are_the_same_for_a_seed_and_others_for_another() -> None:
    things = pairs(held_out=False)
    assert fresh_scenes("places", 20, things, 1) == fresh_scenes("places", 20, things, 1)
    assert fresh_scenes("places", 20, things, 1) != fresh_scenes("places", 20, things, 2)
