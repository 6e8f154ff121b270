"""Forms of an export that another program reads as they are, and that are no source of exports again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from producer.export.source import Picture, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a form made of the pictures."""

    prompts: int | None = None
    """Folders of one prompt each."""
    pages: int | None = None
    """Pages of several pictures."""
    remarks: tuple[str, ...] = ()
    """What to know of them."""


class Consumer(Protocol):
    """A form that looks at all records first, and then writes their pictures."""

    def add(self, record: Record) -> None:
        """Takes in the next record. Raises OutputError, with the remedy, for one that the form has no place
        for."""

    def write(self, target: Path, pictures: Iterator[Picture]) -> Written:
        """Writes a new folder `target` of the pictures, which come in the order of the records.

        Raises OutputError where they do not fit the form, OSError as the system gives it.
        """


def told(index: int, image_id: int) -> str:
    """What a message calls a picture: `image 62f22b5994f2f268 (index 12)`."""
    return f"image {image_id:016x} (index {index})"
