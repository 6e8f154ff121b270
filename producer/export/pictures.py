"""An output's pictures one after the other, each proved while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import OutputError
from jobs.output.output import Output
from producer.export.source import Picture, Row


@dataclass(frozen=True, slots=True)
class OutputSource:
    """An output as a `PictureSource`."""

    output: Output
    shards: tuple[int, ...]
    """The shards that are read; shards that are committed meanwhile are not."""

    @property
    def path(self) -> Path:
        return self.output.path

    def records(self) -> Iterator[Row]:
        for shard in self.shards:
            yield from self.output.records(shard)

    def pictures(self, takes: Callable[[str], bool]) -> Iterator[Picture]:
        return pictures(self.output, self.shards, takes)

    def failed(self) -> Iterable[str]:
        return [failure.image_id for failure in self.output.failures()]

    def broken(self, what: str) -> OutputError:
        return _broken(self.output, what)


def pictures(output: Output, shards: Iterable[int], takes: Callable[[str], bool]) -> Iterator[Picture]:
    """The pictures of these shards that are taken, by image_id, in order, read as they are asked for.

    Raises OutputError naming the first whose file is missing, has a second row, or does not have the SHA-256
    of its row.
    """
    for shard in shards:
        stored = output.stored(shard)
        rows: dict[str, Row] = {}
        for row in stored.records():
            if takes(row["image_id"]) and rows.setdefault(row["file_name"], row) is not row:
                raise _broken(output, f"{stored.path}: two rows are of {row['file_name']}")
        for name, data in stored.pictures(rows.keys()):
            picture = Picture(rows.pop(name), data)
            if not picture.is_whole():
                raise _broken(output, f"{stored.path}: {name} is not the picture that was written (SHA-256)")
            yield picture
        if rows:
            raise _broken(output, f"{stored.path}: {next(iter(rows))} is missing or cannot be read")


def _broken(output: Output, what: str) -> OutputError:
    return OutputError(
        f"{what}; nothing was exported: `imagemill doctor {output.path}` names all that is wrong there, and "
        "with --repair sets it aside"
    )
