"""What an export is made of: pictures with their rows of metadata, from an output or a parquet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.errors import OutputError

Row = dict[str, Any]
"""One of metadata: JSON values by name, in their order."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a source."""

    row: Row
    """Its metadata."""
    data: bytes
    """Its file, as it is."""

    @property
    def suffix(self) -> str:
        """`.png`"""
        return Path(self.row["file_name"]).suffix

    def is_whole(self) -> bool:
        """Whether the file has the SHA-256 of its row."""
        return hashlib.sha256(self.data).hexdigest() == self.row.get("sha256")


class PictureSource(Protocol):
    """Pictures in an order that is always the same.

    Its methods stream, and raise OutputError naming file and place when something is not as it was written.
    """

    @property
    def path(self) -> Path:
        """What a person calls it."""

    def records(self) -> Iterator[Row]:
        """The metadata of every picture."""

    def pictures(self, takes: Callable[[str], bool]) -> Iterator[Picture]:
        """The pictures that are taken, by image_id, each proved while it is read."""

    def failed(self) -> Iterable[str]:
        """The image_ids of those that failed, as far as is known."""

    def broken(self, what: str) -> OutputError:
        """The error that something is not as it should be, with the remedy."""


def check_exportable(source: PictureSource, row: Row) -> None:
    """Raises OutputError for a sound row that not every form of an export can hold."""
    place = f"{source.path}: image {row['image_id']}"
    if "text" not in row:
        raise source.broken(f"{place}: its row of metadata has no text")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise OutputError(
            f"{place}: its row of metadata has half a surrogate pair, which is not Unicode: remove it there"
        ) from None
