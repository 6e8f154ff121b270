"""An output's pictures one after the other, each proved while it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import OutputError
from jobs.output import Output


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of an output."""

    row: dict[str, Any]
    """Its metadata."""
    data: bytes
    """Its file, as it is."""

    @property
    def suffix(self) -> str:
        """`.png`"""
        return Path(self.row["file_name"]).suffix


def pictures(output: Output, shards: Iterable[int], takes: Callable[[str], bool]) -> Iterator[Picture]:
    """The pictures of these shards that are taken, by image_id, in order, read as they are asked for.

    Raises OutputError naming the first whose file is missing or has not the SHA-256 of its row.
    """
    for shard in shards:
        stored = output.stored(shard)
        rows = {row["file_name"]: row for row in stored.rows() if takes(row["image_id"])}
        for name, data in stored.pictures(rows.keys()):
            row = rows.pop(name)
            if hashlib.sha256(data).hexdigest() != row.get("sha256"):
                raise broken(output, f"{stored.path}: {name} is not the picture that was written (SHA-256)")
            yield Picture(row, data)
        if rows:
            raise broken(output, f"{stored.path}: {next(iter(rows))} is missing or cannot be read")


def broken(output: Output, what: str) -> OutputError:
    """The error that an output is not as it should be, for which there is the doctor."""
    return OutputError(
        f"{what}; nothing was exported: `imagemill doctor {output.path}` names all that is wrong there, and "
        "with --repair sets it aside"
    )
