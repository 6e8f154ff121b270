from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tools.shapes.grammar import (
    BACKGROUNDS,
    COLOURS,
    COUNTS,
    HELD_OUT,
    KINDS,
    PLACES,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
    apart,
    bare,
    loosened,
    pairs,
    prompt_of,
    random_scene,
    scene_of,
    words,
)


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
def test_a_prompt_is_read_back_as_the_scene_it_was_made_of(kind: str) -> None:
    rng = random.Random(0)
    for _ in range(500):
        scene = random_scene(kind, rng, pairs(held_out=False))
        for asked in (scene, loosened(scene, rng), bare(scene)):
            assert scene_of(prompt_of(asked)) == asked


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a red dog",
        "an red star",
        "two red star",
        "a red star left of a dog",
        "a red star left of a red star left of a red star",
        "a red star on a white background, please",
        "on a white background",
    ],
)
def test_a_prompt_that_the_grammar_does_not_make_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match=f"'{prompt}': is no prompt of the small world"):
        scene_of(prompt)


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_loosened_scene_leaves_one_word_open_and_contradicts_nothing(kind: str) -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = random_scene(kind, rng, pairs(held_out=False))
        loose = loosened(scene, rng)
        assert loose.wording == scene.wording
        assert loose.background in (None, scene.background)
        left_out = {"background"} if loose.background is None else set()
        for before, after in zip(scene.things, loose.things, strict=True):
            for part in ("colour", "shape", "place"):
                assert getattr(after, part) in (None, getattr(before, part))
                left_out |= {part} if getattr(after, part) is None else set()
        assert len(left_out) == 1
        assert prompt_of(loose) != prompt_of(scene)


def test_a_bare_scene_names_shapes_and_how_several_things_stand() -> None:
    rng = random.Random(0)
    scenes = {kind: random_scene(kind, rng, pairs(held_out=False)) for kind in KINDS}
    shapes = {kind: [thing.shape for thing in scene.things] for kind, scene in scenes.items()}
    assert prompt_of(bare(scenes["one"])) == f"a {shapes['one'][0]}"
    assert prompt_of(bare(scenes["relation"])) == (
        f"a {shapes['relation'][0]} {scenes['relation'].wording} a {shapes['relation'][1]}"
    )
    assert prompt_of(bare(scenes["places"])) == " and ".join(
        f"a {thing.shape} {thing.place}" for thing in scenes["places"].things
    )
    assert prompt_of(bare(scenes["count"])).startswith(f"{scenes['count'].wording} {shapes['count'][0]}")


def test_every_word_of_every_prompt_is_in_the_word_list() -> None:
    known, rng = set(words()), random.Random(0)
    for _ in range(500):
        scene = random_scene(rng.choice(KINDS), rng, pairs(held_out=False))
        assert set(prompt_of(scene).split()) <= known
        assert set(prompt_of(loosened(scene, rng)).split()) <= known
        assert set(prompt_of(bare(scene)).split()) <= known


def test_relations_and_counts_use_places_of_the_grid() -> None:
    for layout in (*RELATIONS.values(), *COUNTS.values()):
        assert set(layout) <= set(PLACES)
