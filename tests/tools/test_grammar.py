from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tools.shapes.grammar import (
    BACKGROUNDS,
    COLOURS,
    COUNTS,
    HELD_OUT,
    PLACES,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
    apart,
    loosened,
    pairs,
    prompt_of,
    random_scene,
    words,
)

KINDS = ("one", "places", "relation", "count")


def test_prompts_read_as_a_person_would_write_them() -> None:
    circle, heart = Thing("red", "circle", "on the left"), Thing("orange", "heart", "on the right")
    assert prompt_of(Scene((circle,), "white")) == "a red circle on the left on a white background"
    assert prompt_of(Scene((circle, heart), "pink")) == (
        "a red circle on the left and an orange heart on the right on a pink background"
    )
    assert prompt_of(Scene((circle, heart), "sky", "left of")) == (
        "a red circle left of an orange heart on a sky background"
    )
    assert prompt_of(Scene((circle, replace(circle, place="on the right")), "gray", "two")) == (
        "two red circles on a gray background"
    )
    assert prompt_of(Scene((Thing("orange", None, None),), None)) == "an orange shape"


@pytest.mark.parametrize("kind", KINDS)
def test_random_scenes_are_of_the_kind_asked_for_and_their_things_never_touch(kind: str) -> None:
    rng = random.Random(0)
    for _ in range(200):
        scene = random_scene(kind, rng, pairs(held_out=False))
        assert scene.kind == kind
        assert scene.background in BACKGROUNDS
        places = [thing.place for thing in scene.things if thing.place is not None]
        assert len(places) == len(scene.things)
        assert all(apart(one, other) for n, one in enumerate(places) for other in places[:n])


def test_no_scene_of_the_seen_pairs_shows_a_held_out_one() -> None:
    seen, held_out = pairs(held_out=False), pairs(held_out=True)
    assert set(held_out) == HELD_OUT
    assert len(seen) + len(held_out) == len(COLOURS) * len(SHAPES)
    assert not set(seen) & HELD_OUT


def test_every_colour_and_shape_of_a_held_out_pair_is_seen_in_other_pairs() -> None:
    seen = pairs(held_out=False)
    assert {colour for colour, _ in seen} == set(COLOURS)
    assert {shape for _, shape in seen} == set(SHAPES)


def test_a_loosened_scene_leaves_one_word_open_and_contradicts_nothing() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = random_scene(rng.choice(KINDS), rng, pairs(held_out=False))
        loose = loosened(scene, rng)
        assert loose.wording == scene.wording
        assert loose.background in (None, scene.background)
        for before, after in zip(scene.things, loose.things, strict=True):
            assert after.colour in (None, before.colour)
            assert after.shape in (None, before.shape)
            assert after.place in (None, before.place)
        prompt_of(loose)


def test_every_word_of_every_prompt_is_in_the_word_list() -> None:
    known, rng = set(words()), random.Random(0)
    for _ in range(500):
        scene = random_scene(rng.choice(KINDS), rng, pairs(held_out=False))
        assert set(prompt_of(scene).split()) <= known
        assert set(prompt_of(loosened(scene, rng)).split()) <= known


def test_relations_and_counts_use_places_of_the_grid() -> None:
    for layout in (*RELATIONS.values(), *COUNTS.values()):
        assert set(layout) <= set(PLACES)
