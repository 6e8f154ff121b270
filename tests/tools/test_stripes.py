from __future__ import annotations

import random

from PIL import Image

from tools.shapes.draw import draw
from tools.shapes.grammar import KINDS, pairs, random_scene
from tools.shapes.score import score
from tools.shapes.stripes import filled, striped, stripedness

_RNG = random.Random(0)
SCENES = [random_scene(KINDS[n % 4], _RNG, pairs(held_out=False)) for n in range(48)]
DRAWINGS = [draw(scene, _RNG) for scene in SCENES]
STRIPED = [striped(image, str(scene.background)) for image, scene in zip(DRAWINGS, SCENES, strict=True)]


def test_plain_drawings_are_hardly_striped_and_striped_ones_wholly() -> None:
    assert max(map(stripedness, DRAWINGS)) < 0.15
    assert min(map(stripedness, STRIPED)) > 0.9


def test_paler_gaps_are_less_striped() -> None:
    for plain, bars in zip(DRAWINGS[:20], STRIPED[:20], strict=True):
        figures = [stripedness(Image.blend(plain, bars, share)) for share in (0.0, 0.25, 0.5, 1.0)]
        assert figures == sorted(figures)
        assert figures[1] > figures[0]


def test_the_checker_reads_numbers_colours_and_places_of_striped_things_with_their_gaps_filled() -> None:
    for style in (DRAWINGS, STRIPED):
        seen = score(SCENES, [filled(image) for image in style])
        assert seen.background == 1.0
        assert min(seen.colour, seen.place) >= 0.95
    assert score(SCENES, STRIPED).place < 0.5


def test_bare_paper_has_no_stripes() -> None:
    paper = Image.new("RGB", (64, 64), (250, 250, 250))
    assert stripedness(paper) == 0.0
    assert filled(paper).tobytes() == paper.tobytes()
