"""The templates of one job: what is wrong with them, how much they stand for, and the prompts they give."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from jobs.errors import ManifestError
from jobs.output.compact_counter import CompactCounter
from producer.wildcards.choices import MOST, Choice, Choices, Fixed, Weighed, choice_of, row_of, texts
from producer.wildcards.folder import WildcardFolder
from producer.wildcards.grammar import (
    Alternatives,
    Option,
    Parts,
    Tree,
    Wildcard,
    Words,
    canonical,
    parse,
)
from producer.wildcards.line_template import APART, has_syntax

MOST_COMBINATIONS: Final = 100_000
"""Of a template that is not sampled: all of them are held."""
LONGEST: Final = 20_000
"""Characters of a prompt that a template gives."""
MOST_PLACES: Final = 1000
"""Places at which one draw chooses."""
_MOST_TAKEN: Final = 100
"""Options of {1-100$$…}."""
_DEEPEST: Final = 20
"""Wildcards within wildcards."""
_DRAWN_AT_ONCE: Final = 1024
_KEPT: Final = 1000
"""Templates whose choices are kept."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a job draws from its templates."""

    job: str
    folder: Path
    sample: int | None
    """Draws of each template; None takes every combination."""
    sample_seed: int


class Templates:
    """Reads templates and draws from them. Templates that are equal share their draws: one that comes twice
    with `sample: 5` gives what one with `sample: 10` would."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing
        self._folder = WildcardFolder(drawing.folder)
        self._wildcards: dict[str, Choice] = {}
        self._known: dict[str, Choices] = {}
        self._begun = CompactCounter()

    @property
    def files(self) -> dict[str, str]:
        """The SHA-256 of every wildcard file that was read, by its path."""
        return self._folder.files

    def trouble(self, text: str) -> str | None:
        """Why `text` gives no prompts, with the remedy; None when it does."""
        if not has_syntax(text):
            return None
        try:
            choices = self.choices(text)
        except ManifestError as error:
            return str(error)
        if isinstance(choices, Fixed) and not choices.text.strip(f" \n{APART}"):
            return "stands for no words: # begins a comment"
        count = choices.size.combinations
        if self._drawing.sample is None and count > MOST_COMBINATIONS:
            what = f"{count:,}" if count < MOST else f"{MOST:.0e} and more"
            return (
                f"stands for {what} prompts, and {MOST_COMBINATIONS:,} is the most: write `sample: N` in the "
                "manifest to draw N of them"
            )
        return None

    def prompts(self, text: str) -> Iterator[str]:
        """The prompts that a template gives, in order. Raises ManifestError as `trouble` says."""
        if not has_syntax(text):
            yield text
            return
        choices, sample = self.choices(text), self._drawing.sample
        if isinstance(choices, Fixed):
            yield choices.text
        elif sample is None:
            if (trouble := self.trouble(text)) is not None:
                raise ManifestError(trouble)
            yield from dict.fromkeys(texts(choices))
        else:
            yield from self._drawn(text, choices, sample)

    def _drawn(self, text: str, choices: Choices, sample: int) -> Iterator[str]:
        from producer.wildcards.lots import draw_keys, drawn

        line = json.dumps([self._drawing.job, self._drawing.sample_seed, text])
        key = int.from_bytes(blake2b(line.encode(), digest_size=8).digest(), "big")
        first = self._begun.get(key)
        self._begun.set(key, first + sample)
        for start in range(0, sample, _DRAWN_AT_ONCE):
            count = min(_DRAWN_AT_ONCE, sample - start)
            yield from drawn(choices, draw_keys(line, first + start, count))

    def choices(self, text: str) -> Choices:
        """What a template stands for. Raises ManifestError with what is wrong and the remedy."""
        known = self._known.get(text)
        if known is None:
            prompt, apart, negative = text.partition(APART)
            parts = [self._compiled(parse(prompt), ())]
            if apart:
                parts += [Fixed(APART), self._compiled(parse(negative), ())]
            known = self._bounded(row_of(parts))
            if len(self._known) == _KEPT:
                self._known.clear()
            self._known[text] = known
        return known

    def _bounded(self, choices: Choices) -> Choices:
        size = choices.size
        if size.longest > LONGEST and not isinstance(choices, Fixed):
            raise ManifestError(
                f"gives prompts of more than {LONGEST:,} characters: shorten it or its wildcards"
            )
        if size.places > MOST_PLACES:
            raise ManifestError(f"chooses at more than {MOST_PLACES:,} places: shorten it or its wildcards")
        return choices

    def _compiled(self, tree: Tree, within: tuple[str, ...]) -> Choices:
        """`within`: the wildcards that are being read."""
        match tree:
            case Words(text):
                return Fixed(text)
            case Parts(trees):
                return row_of([self._compiled(one, within) for one in trees])
            case Wildcard(name):
                return self._wildcard(name, within)
            case Alternatives(options, least, most, separator):
                alone = options[0].tree if len(options) == 1 else None
                if (least, most) == (1, 1) and alone is not None:
                    return self._compiled(alone, within)
                if isinstance(alone, Wildcard):
                    of_file = self._wildcard(alone.name, within)
                    found = list(zip(of_file.names, of_file.weights, of_file.options, strict=True))
                else:
                    found = self._weighed(options, within)
                return _choice(found, least, most, separator)

    def _weighed(self, options: Sequence[Option], within: tuple[str, ...]) -> list[Weighed]:
        """Each option once; equal ones share what they weigh together."""
        weights: dict[str, float] = {}
        trees: dict[str, Tree] = {}
        for option in options:
            key = canonical(option.tree)
            weights[key] = weights.get(key, 0.0) + option.weight
            trees[key] = option.tree
        return [
            (key, weight, self._compiled(trees[key], within)) for key, weight in weights.items() if weight > 0
        ]

    def _wildcard(self, name: str, within: tuple[str, ...]) -> Choice:
        if name in within:
            chain = " -> ".join(f"__{one}__" for one in (*within[within.index(name) :], name))
            raise _InFile(f"{chain}: a wildcard cannot stand for itself: take it out of its own file")
        if len(within) == _DEEPEST:
            raise ManifestError(f"__{within[0]}__: wildcards are nested deeper than {_DEEPEST}: flatten them")
        known = self._wildcards.get(name)
        if known is not None:
            return known
        options: list[Weighed] = []
        for option in self._folder.options(name):
            if option.weight > 0:
                try:
                    made = self._compiled(parse(option.text), (*within, name))
                except _InFile:
                    raise
                except ManifestError as error:
                    raise _InFile(f"{option.place}: {error}") from None
                options.append((option.text, option.weight, made))
        # One option is a choice too: a second one must change no other place.
        choice = self._wildcards[name] = _choice(options, 1, 1, ",")
        return choice


class _InFile(ManifestError):
    """What is wrong in a wildcard file, with its place there."""


def _choice(found: list[Weighed], least: int, most: int, separator: str) -> Choice:
    if not found:
        raise ManifestError("has no option with a weight above 0: give one")
    if least > len(found):
        raise ManifestError(f"takes {least} of {len(found)}: take fewer, or add some")
    most = min(most, len(found))
    if most > _MOST_TAKEN:
        raise ManifestError(f"takes up to {most:,} options, and {_MOST_TAKEN} is the most: take fewer")
    return choice_of(found, least, most, separator)
