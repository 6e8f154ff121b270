"""Pages of a grid and what stands on them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jobs.request import SETTINGS
from producer.export.consumer import told


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The columns along which pictures are laid out; without both, a page's pictures stand side by side."""

    x: str | None = None
    y: str | None = None
    pages: tuple[str, ...] = ()
    """The columns of which each combination has pages of its own; without any, the prompt, its id and every
    setting that no axis decides."""

    @property
    def named(self) -> tuple[str, ...]:
        """Both, as far as they are given."""
        return tuple(name for name in (self.x, self.y) if name is not None)


class GridPicture(NamedTuple):
    """A picture of a grid, as a plan knows it by its record."""

    position: int
    """In the source, from 0."""
    image_id: int
    text: str
    id: Hashable
    """A text or None; anything else in a record that others wrote."""
    seed: int
    settings: tuple[Hashable, ...]
    """The values of SETTINGS."""
    own: tuple[Hashable, ...]
    """Those of the columns that the plan was made for."""

    @property
    def called(self) -> str:
        """What a message calls it."""
        return told(self.position, self.image_id)

    def setting(self, name: str) -> Any:
        """The value of one of SETTINGS."""
        return self.settings[SETTINGS.index(name)]


@dataclass(frozen=True, slots=True)
class Along:
    """An axis: its name, and the labels of its values in their order."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page."""

    number: int
    """From 0, in the order of the pages."""
    pictures: tuple[GridPicture, ...]
    """In the order of the source."""
    x: Along | None
    """What its columns are; None where they are nothing."""
    y: Along | None
    """What its rows are."""
    places: tuple[tuple[int, int], ...]
    """The column and the row of each picture."""
    columns: int
    rows: int
    heading: str
    shared: str
    """The settings in which pages differ, as this page has them."""
    captions: tuple[str, ...]
    """What each picture has for itself; empty with axes."""

    @property
    def indices(self) -> list[int]:
        """The pictures' places in the source."""
        return [one.position for one in self.pictures]

    @property
    def missing(self) -> int:
        """Cells without a picture, of a page with axes."""
        return self.columns * self.rows - len(self.pictures) if self.x or self.y else 0


def label(value: Hashable) -> str:
    """A value for people: `7.5`, `3` for 3.0, `none`, `(empty)`."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value) if value != "" else "(empty)"
