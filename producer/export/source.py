"""What an export is made of: pictures with their records, from an output or a parquet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.errors import OutputError

Record = dict[str, Any]
"""Metadata of one image: JSON values by name, in their order."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a source."""

    record: Record
    """Its metadata."""
    data: bytes
    """Its file, as it is."""

    @property
    def suffix(self) -> str:
        """`.png`"""
        return Path(self.record["file_name"]).suffix

    def is_whole(self) -> bool:
        """Whether the file has the SHA-256 of its record."""
        return hashlib.sha256(self.data).hexdigest() == self.record.get("sha256")


class PictureSource(Protocol):
    """Pictures in an order that is always the same.

    Its methods stream, and raise OutputError naming file and place when something is not as it was written.
    """

    @property
    def path(self) -> Path | str:
        """What a person calls it."""

    def records(self) -> Iterator[Record]:
        """The metadata of every picture."""

    def pictures(self, takes: Callable[[Record], bool]) -> Iterator[Picture]:
        """The pictures whose records are taken, each proved while it is read."""

    def failed(self) -> Iterable[str]:
        """The image_ids of those that failed, as far as is known."""

    def broken(self, what: str) -> OutputError:
        """The error that something is not as it should be, with the remedy."""


def check_exportable(source: PictureSource, record: Record) -> None:
    """Raises OutputError for a sound record that not every form of an export can hold."""
    place = f"{source.path}: image {record['image_id']}"
    if "text" not in record:
        raise source.broken(f"{place}: its metadata has no text")
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise OutputError(
            f"{place}: its metadata has half a surrogate pair, which is not Unicode: remove it there"
        ) from None
