"""An output's pictures one after the other, each proved while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import OutputError
from jobs.output.output import Output
from producer.export.source import Picture, Record


@dataclass(frozen=True, slots=True)
class OutputSource:
    """An output as a `PictureSource`."""

    output: Output
    shards: tuple[int, ...]
    """The shards that are read; shards that are committed meanwhile are not."""

    @property
    def path(self) -> Path:
        return self.output.path

    def records(self) -> Iterator[Record]:
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

    Raises OutputError naming the first whose file is missing, has a second record, or does not have the
    SHA-256 of its record.
    """
    for shard in shards:
        stored = output.stored(shard)
        records: dict[str, Record] = {}
        for record in stored.records():
            if takes(record["image_id"]) and records.setdefault(record["file_name"], record) is not record:
                raise _broken(output, f"{stored.path}: two records are of {record['file_name']}")
        for name, data in stored.pictures(records.keys()):
            picture = Picture(records.pop(name), data)
            if not picture.is_whole():
                raise _broken(output, f"{stored.path}: {name} is not the picture that was written (SHA-256)")
            yield picture
        if records:
            raise _broken(output, f"{stored.path}: {next(iter(records))} is missing or cannot be read")


def _broken(output: Output, what: str) -> OutputError:
    return OutputError(
        f"{what}; nothing was exported: `imagemill doctor {output.path}` names all that is wrong there, and "
        "with --repair sets it aside"
    )
