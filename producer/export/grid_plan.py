"""Which picture of a grid stands on which page, and where on it."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from jobs.arguments import arguments_of
from jobs.errors import OutputError
from jobs.request import IMAGE_SETTINGS, SETTINGS
from producer.export.columns import value_of
from producer.export.consumer import told
from producer.export.grid_layout import Along, Axes, GridPicture, Page, label
from producer.export.source import Record

_SEED, _ARGUMENT = "seed", "arguments."
_ARGUMENTS = SETTINGS.index("arguments")


class _Axis(NamedTuple):
    along: Along
    places: list[int]
    """Of each picture, in the order of the source."""


class Plan:
    """Learns from all records, one after the other, and lays them out."""

    def __init__(self, axes: Axes, others: Iterable[str]) -> None:
        """`others`: columns whose values will be asked for by `shared_value`."""
        self._axes = axes
        options = {"--x": (axes.x,), "--y": (axes.y,), "--page": axes.pages, "--name": tuple(others)}
        self._asked = [
            (option, name) for option, names in options.items() for name in names if name is not None
        ]
        self._names = [name for _, name in self._asked]
        self._pictures: list[GridPicture] = []
        self._settings = dict[tuple[Hashable, ...], tuple[Hashable, ...]]()

    def add(self, record: Record) -> None:
        """Takes in the next record. Raises OutputError for a column that it does not have."""
        own = []
        for option, name in self._asked:
            try:
                own.append(None if name == "index" else _key(value_of(record, name)))
            except LookupError as error:
                what = told(len(self._pictures), int(record["image_id"], 16))
                raise OutputError(f"{option} {name}: {what} {error.args[0]}") from None
        settings = tuple(_key(value_of(record, name)) for name in SETTINGS)
        self._pictures.append(
            GridPicture(
                len(self._pictures),
                int(record["image_id"], 16),
                record["text"],
                _key(record.get("id")),
                record.get(_SEED, 0),
                self._settings.setdefault(settings, settings),
                tuple(own),
            )
        )

    def largest(self) -> tuple[int, int]:
        """The width and the height, in pixels, that hold each of the pictures."""
        sizes = {(one.setting("width"), one.setting("height")) for one in self._pictures}
        return max(width for width, _ in sizes), max(height for _, height in sizes)

    def shared_value(self, page: Page, name: str) -> Hashable:
        """The value of a column that the plan was made for, on this page. Raises LookupError where the
        page's pictures have several."""
        values = {self._value(one, name) for one in page.pictures}
        if len(values) > 1:
            raise LookupError(f"has pictures that differ in {name}: name a column that they share")
        return values.pop()

    def pages(self) -> list[Page]:
        """The pages, in the order of their first pictures. Raises OutputError for two pictures that would
        stand in one place."""
        groups = self._grouped()
        axes = [self._axis(name, groups) for name in self._axes.named]
        split = [part for group in groups.values() for part in self._by_seed(group, axes)]
        differing = _differing(self._pictures)
        pages = list[Page]()
        for part in sorted(split, key=lambda part: part[0].position):
            if axes:
                pages.append(self._laid_out(len(pages), part, axes, differing))
            else:
                pages.append(self._side_by_side(len(pages), part, differing))
        return pages

    def _grouped(self) -> dict[tuple[Hashable, ...], list[GridPicture]]:
        """The pictures of each page, or of several that differ in the seed alone."""
        axes, pages = self._axes.named, self._axes.pages
        # An axis of prompts, or of what belongs to a prompt, lays these out; another one does not.
        of_prompts = any(name not in IMAGE_SETTINGS and not name.startswith(_ARGUMENT) for name in axes)
        groups = dict[tuple[Hashable, ...], list[GridPicture]]()
        for one in self._pictures:
            base: tuple[Hashable, ...] = () if of_prompts or "prompt" in axes else (one.id, one.text)
            if pages:
                base = tuple(self._value(one, name) for name in pages)
            groups.setdefault(base, []).append(one)
        if pages or not axes:
            return groups
        deciding = self._undecided(groups)
        split = dict[tuple[Hashable, ...], list[GridPicture]]()
        for base, group in groups.items():
            for one in group:
                rest = self._rest(one)
                split.setdefault((*base, *(rest[place] for place in deciding)), []).append(one)
        return split

    def _undecided(self, groups: dict[tuple[Hashable, ...], list[GridPicture]]) -> list[int]:
        """The settings that the axes do not decide within every group."""
        found = set[int]()
        for group in groups.values():
            first = dict[tuple[Hashable, ...], tuple[Hashable, ...]]()
            for one in group:
                rest = self._rest(one)
                there = first.setdefault(tuple(self._value(one, name) for name in self._axes.named), rest)
                if there is not rest:
                    found.update(place for place, value in enumerate(rest) if value != there[place])
        return sorted(found)

    def _rest(self, one: GridPicture) -> tuple[Hashable, ...]:
        """The values of SETTINGS, less the single arguments that are an axis."""
        single = {name.removeprefix(_ARGUMENT) for name in self._axes.named if name.startswith(_ARGUMENT)}
        if not single:
            return one.settings
        arguments = arguments_of(str(one.settings[_ARGUMENTS]))
        rest = json.dumps({name: value for name, value in arguments.items() if name not in single})
        return (*one.settings[:_ARGUMENTS], rest, *one.settings[_ARGUMENTS + 1 :])

    def _axis(self, name: str, groups: dict[tuple[Hashable, ...], list[GridPicture]]) -> _Axis:
        """Each picture's place on an axis. A seed is its number among those of its line where no two lines
        have one in common, as derived seeds have not."""
        values = [self._value(one, name) for one in self._pictures]
        if name == _SEED:
            others = [other for other in self._axes.named if other != name]
            lines = dict[tuple[Hashable, ...], list[GridPicture]]()
            for key, group in groups.items():
                for one in group:
                    lines.setdefault((*key, *(self._value(one, other) for other in others)), []).append(one)
            if len(lines) > 1 and not _have_common([{one.seed for one in line} for line in lines.values()]):
                name = "seed, each line's own"
                for line in lines.values():
                    for number, one in enumerate(line, 1):
                        values[one.position] = number
        ordered = _ordered(values)
        place = {value: number for number, value in enumerate(ordered)}
        return _Axis(Along(name, tuple(map(label, ordered))), [place[value] for value in values])

    def _by_seed(self, group: list[GridPicture], axes: Sequence[_Axis]) -> list[list[GridPicture]]:
        """The group's pages: one for each seed, or for each number of a picture among those of its cell
        where no two cells have a seed in common, as derived seeds have not."""
        cells = dict[tuple[Hashable, ...], list[GridPicture]]()
        for one in group:
            cells.setdefault(tuple(axis.places[one.position] for axis in axes), []).append(one)
        several = any(len(cell) > 1 for cell in cells.values())
        if not axes or not several or _SEED in (*self._axes.named, *self._axes.pages):
            return [group]
        by_value = _have_common([{one.seed for one in cell} for cell in cells.values()])
        parts = dict[int, list[GridPicture]]()
        for cell in cells.values():
            for number, one in enumerate(cell):
                parts.setdefault(one.seed if by_value else number, []).append(one)
        return [sorted(part, key=lambda one: one.position) for part in parts.values()]

    def _laid_out(
        self, number: int, part: list[GridPicture], axes: Sequence[_Axis], differing: Sequence[str]
    ) -> Page:
        x = axes[0] if self._axes.x is not None else None
        y = axes[-1] if self._axes.y is not None else None
        places = dict[tuple[int, int], GridPicture]()
        for one in part:
            place = (0 if x is None else x.places[one.position]), (0 if y is None else y.places[one.position])
            other = places.setdefault(place, one)
            if other is not one:
                raise self._doubled(other, one)
        return Page(
            number=number,
            pictures=tuple(part),
            x=None if x is None else x.along,
            y=None if y is None else y.along,
            places=tuple(places),
            columns=1 if x is None else len(x.along.labels),
            rows=1 if y is None else len(y.along.labels),
            heading=_heading(part),
            shared=self._told(part, differing),
            captions=(),
        )

    def _side_by_side(self, number: int, part: list[GridPicture], differing: Sequence[str]) -> Page:
        columns = next(width for width in range(1, len(part) + 1) if width * width >= len(part))
        here = _differing(part)
        return Page(
            number=number,
            pictures=tuple(part),
            x=None,
            y=None,
            places=tuple((place % columns, place // columns) for place in range(len(part))),
            columns=columns,
            rows=-(-len(part) // columns),
            heading=_heading(part),
            shared=self._told(part, differing),
            captions=tuple(" · ".join(f"{name} {label(_value(one, name))}" for name in here) for one in part),
        )

    def _told(self, part: list[GridPicture], differing: Sequence[str]) -> str:
        """The settings in which the pages differ, as these pictures have them."""
        said, others = [], []
        for name in ("id", *differing):
            values = {_value(one, name) for one in part}
            if len(values) > 1:
                others.append(name)
            elif values != {None}:
                said.append(f"{name} {label(values.pop())}")
        if not self._axes.named:
            return " · ".join(said)
        besides = [
            name for name in others if name not in self._axes.named and name not in ("id", "arguments")
        ]
        return " · ".join([*said, *([f"each with its own {', '.join(besides)}"] if besides else [])])

    def _value(self, one: GridPicture, name: str) -> Hashable:
        return one.own[self._names.index(name)]

    def _doubled(self, one: GridPicture, other: GridPicture) -> OutputError:
        place = ", ".join(f"{name} = {label(self._value(one, name))}" for name in self._axes.named)
        named = [
            name for name in ("id", "prompt", _SEED, *SETTINGS) if _value(one, name) != _value(other, name)
        ]
        what, column = (" and ".join(named), named[0]) if named else ("columns of your own", "COLUMN")
        return OutputError(
            f"{one.called} and {other.called} would stand in one place of a page ({place}): they differ in "
            f"{what}: give each a page of its own by --page {column}, or name another axis"
        )


def _differing(part: Sequence[GridPicture]) -> list[str]:
    """The settings, seed included, in which these pictures differ; a model's revision goes with it."""
    tuples = {one.settings for one in part}
    found = [name for place, name in enumerate(SETTINGS) if len({one[place] for one in tuples}) > 1]
    if "model" in found and "revision" in found:
        found.remove("revision")
    return [*found, *([_SEED] if len({one.seed for one in part}) > 1 else [])]


def _heading(part: Sequence[GridPicture]) -> str:
    """The prompt of all these pictures; empty where they have several."""
    return "" if len({one.text for one in part}) > 1 else part[0].text or "(the empty prompt)"


def _value(one: GridPicture, name: str) -> Hashable:
    plain = {"id": one.id, "prompt": one.text, _SEED: one.seed}
    return plain[name] if name in plain else one.setting(name)


def _key(value: Any) -> Hashable:
    """The value; a list or an object as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def _ordered(values: Iterable[Hashable]) -> list[Hashable]:
    """Different values: numbers from the smallest, others in the order of the source."""
    found = list(dict.fromkeys(values))
    numbers = [value for value in found if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return [*sorted(numbers)] if len(numbers) == len(found) else found


def _have_common(sets: Sequence[set[int]]) -> bool:
    """Whether an element is in two of the sets."""
    return len(set[int]().union(*sets)) < sum(map(len, sets))
