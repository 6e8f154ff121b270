"""The prompts of the small world, and what each of them promises. No pixels here.

A scene is one to four things on a background. A thing has a colour, a shape and one of nine places; what a
prompt leaves out is free. Things of one prompt stand at least half a picture apart.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black")
SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "cross")
BACKGROUNDS: Final = ("white", "gray", "pink", "mint", "sky", "lavender")

PLACES: Final = {
    "at the top left": (0, 0),
    "at the top": (1, 0),
    "at the top right": (2, 0),
    "on the left": (0, 1),
    "in the middle": (1, 1),
    "on the right": (2, 1),
    "at the bottom left": (0, 2),
    "at the bottom": (1, 2),
    "at the bottom right": (2, 2),
}
"""Column and row, from the top left, of a grid of three by three."""

RELATIONS: Final = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
"""Where "a … <relation> a …" puts its first and its second thing."""

COUNTS: Final = {
    "two": ("on the left", "on the right"),
    "three": ("at the top left", "at the top right", "at the bottom"),
    "four": ("at the top left", "at the top right", "at the bottom left", "at the bottom right"),
}
"""Where "<count> …s" puts its equal things."""

KINDS: Final = ("one", "places", "relation", "count")
"""The sorts of scenes: one thing, two at places of their own, two by a relation, a count of equal things."""

HELD_OUT: Final = frozenset(
    {
        ("red", "square"),
        ("yellow", "heart"),
        ("green", "star"),
        ("blue", "triangle"),
        ("purple", "cross"),
        ("brown", "circle"),
    }
)
"""(colour, shape) pairs that the UNet is never shown: can it join what it never saw joined?"""


@dataclass(frozen=True, slots=True)
class Thing:
    """A coloured shape at a place; None is what the prompt leaves open."""

    colour: str | None
    shape: str | None
    place: str | None


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a background, and the wording that a prompt uses for where they are.

    wording: "places" (each thing names its own), a relation (of two things), or a count (of equal things).
    """

    things: tuple[Thing, ...]
    background: str | None
    wording: str = "places"

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        if self.wording in RELATIONS:
            return "relation"
        if self.wording in COUNTS:
            return "count"
        return "one" if len(self.things) == 1 else "places"


def prompt_of(scene: Scene) -> str:
    """The prompt that asks for `scene`, such as "a red circle left of a blue star on a pink background"."""
    if scene.wording in COUNTS:
        first = scene.things[0]
        words = f"{scene.wording} {_plural(_noun(first))}"
    elif scene.wording in RELATIONS:
        first, second = scene.things
        words = f"{_article(_noun(first))} {scene.wording} {_article(_noun(second))}"
    else:
        words = " and ".join(_phrase(thing) for thing in scene.things)
    return words if scene.background is None else f"{words} on {_article(scene.background + ' background')}"


def scene_of(prompt: str) -> Scene:
    """The scene that `prompt` asks for: `prompt_of` backwards. Raises ValueError for any other prompt."""
    wording = next((words for words in (*RELATIONS, *COUNTS) if f" {words} " in f" {prompt}"), "places")
    things = [Thing(*(part or None for part in parts)) for parts in _THING.findall(prompt)]
    if wording in COUNTS:
        things *= len(COUNTS[wording])
    places = {**RELATIONS, **COUNTS}.get(wording, [thing.place for thing in things])
    background = _BACKGROUND.search(prompt)
    scene = Scene(
        tuple(replace(thing, place=place) for thing, place in zip(things, places, strict=False)),
        None if background is None else background[1],
        wording,
    )
    # The search above skips what it does not know; only a prompt said back word for word was understood.
    if not things or len(things) != len(places) or prompt_of(scene) != prompt:
        raise ValueError(f"{prompt!r}: is no prompt of the small world")
    return scene


def pairs(held_out: bool) -> list[tuple[str, str]]:
    """The (colour, shape) pairs that training shows, or those that it never does."""
    return [pair for pair in product(COLOURS, SHAPES) if (pair in HELD_OUT) is held_out]


def random_scene(kind: str, rng: random.Random, things: list[tuple[str, str]]) -> Scene:
    """A scene of this kind, nothing left open, its things' (colour, shape) out of `things`."""
    background = rng.choice(BACKGROUNDS)
    if kind == "count":
        wording = rng.choice(list(COUNTS))
        colour, shape = rng.choice(things)
        return Scene(tuple(Thing(colour, shape, place) for place in COUNTS[wording]), background, wording)
    if kind == "relation":
        wording = rng.choice(list(RELATIONS))
        return Scene(
            tuple(Thing(*rng.choice(things), place) for place in RELATIONS[wording]), background, wording
        )
    places = rng.choice(_APART) if kind == "places" else (rng.choice(list(PLACES)),)
    return Scene(tuple(Thing(*rng.choice(things), place) for place in places), background)


def loosened(scene: Scene, rng: random.Random) -> Scene:
    """`scene` with one of its words left open: a colour, a shape, a lone thing's place, or the background."""
    place = ("place",) if scene.kind == "one" else ()
    what = rng.choice(("colour", "shape", "background", *place))
    if what == "background":
        return replace(scene, background=None)
    at = rng.randrange(len(scene.things))
    loose = tuple(
        replace(thing, **{what: None}) if number == at or scene.kind == "count" else thing
        for number, thing in enumerate(scene.things)
    )
    return replace(scene, things=loose)


def bare(scene: Scene) -> Scene:
    """`scene` with nothing but its shapes named, and where several things stand: "a heart", "two hearts"."""
    things = tuple(
        Thing(None, thing.shape, None if scene.kind == "one" else thing.place) for thing in scene.things
    )
    return replace(scene, things=things, background=None)


def apart(one: str, other: str) -> bool:
    """Whether two places are far enough apart for two things not to touch."""
    (column, row), (other_column, other_row) = PLACES[one], PLACES[other]
    return max(abs(column - other_column), abs(row - other_row)) == 2


def words() -> list[str]:
    """Every word that a prompt of the grammar can hold, sorted."""
    return sorted(set(_words()))


_APART: Final = [pair for pair in product(PLACES, PLACES) if apart(*pair)]
_THING: Final = re.compile(
    # The longest place first: "at the top" begins "at the top left".
    f"(?:({'|'.join(COLOURS)}) )?(?:({'|'.join(SHAPES)})|shape)"
    f"(?: ({'|'.join(sorted(PLACES, key=len, reverse=True))}))?"
)
_BACKGROUND: Final = re.compile(f"({'|'.join(BACKGROUNDS)}) background$")


def _words() -> Iterator[str]:
    yield from ("a", "an", "and", "on", "background", "shape", "shapes")
    yield from (*COLOURS, *SHAPES, *map(_plural, SHAPES), *BACKGROUNDS)
    for phrase in (*PLACES, *RELATIONS, *COUNTS):
        yield from phrase.split()


def _phrase(thing: Thing) -> str:
    return " ".join(part for part in (_article(_noun(thing)), thing.place) if part is not None)


def _noun(thing: Thing) -> str:
    shape = "shape" if thing.shape is None else thing.shape
    return shape if thing.colour is None else f"{thing.colour} {shape}"


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
