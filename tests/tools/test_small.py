from __future__ import annotations

import random

import pytest
from PIL import Image

from tools.shapes.draw import draw
from tools.shapes.grammar import KINDS, pairs, random_scene
from tools.shapes.score import score
from tools.shapes.small import SHARE, small, smallness

_RNG = random.Random(0)
SCENES = [random_scene(KINDS[n % 4], _RNG, pairs(held_out=False)) for n in range(48)]
DRAWINGS = [draw(scene, _RNG) for scene in SCENES]
SMALL = [small(image, str(scene.background)) for image, scene in zip(DRAWINGS, SCENES, strict=True)]


def test_small_things_are_smaller_by_their_share_and_else_the_same() -> None:
    for plain, less in zip(DRAWINGS, SMALL, strict=True):
        if smallness(plain) > 0:
            assert 1 - smallness(less) == pytest.approx(SHARE * (1 - smallness(plain)), rel=0.06)
        assert smallness(less) > smallness(plain)
    seen = score(SCENES, SMALL)
    assert seen.background == seen.colour == 1.0
    # What lies cut off at the border shrinks towards the middle of what is there.
    assert min(seen.place, seen.shape) >= 0.95


def test_bare_paper_is_not_small() -> None:
    assert smallness(Image.new("RGB", (64, 64), (250, 250, 250))) == 0.0
