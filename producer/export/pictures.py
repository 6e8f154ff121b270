"""An output's pictures one after the other, each proved while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from jobs.errors import OutputError
from jobs.output.line_order import Places, Split, last_job
from jobs.output.output import Output
from jobs.output.picture_file import read_picture
from jobs.output.stored_shard import Span
from producer.export.source import Picture, Record

_AHEAD = 64
"""Pictures that are held at a time where the order is not that of the shards."""


@dataclass(frozen=True, slots=True)
class OutputSource:
    """An output as a `PictureSource`."""

    output: Output
    shards: tuple[int, ...]
    """The shards that are read; shards that are committed meanwhile are not."""
    split: Split
    """The order of their lines."""

    @property
    def path(self) -> str:
        return self.output.label

    def records(self) -> Iterator[Record]:
        if self.split.in_order:
            return (record for _, stored in self.output.in_turn(self.shards) for record in stored.records())
        return (self.output.stored(shard).record_at(span) for shard, span in self.split)

    def pictures(self, takes: Callable[[Record], bool]) -> Iterator[Picture]:
        if self.split.in_order:
            for shard in self.shards:
                yield from pictures(self.output, shard, self.output.records(shard), takes)
            return
        lines = iter(self.split)
        while some := list(islice(lines, _AHEAD)):
            yield from self._mixed(some, takes)

    def _mixed(self, lines: Sequence[tuple[int, Span]], takes: Callable[[Record], bool]) -> Iterator[Picture]:
        """The pictures of these lines, in their order, shard by shard in as few readings as possible."""
        places = dict[int, list[Span]]()
        for shard, span in lines:
            places.setdefault(shard, []).append(span)
        found = {
            (shard, span): picture
            for shard, spans in places.items()
            for span, picture in self._at(shard, spans, takes)
        }
        return (found[line] for line in lines if line in found)

    def _at(
        self, shard: int, spans: Sequence[Span], takes: Callable[[Record], bool]
    ) -> Iterator[tuple[Span, Picture]]:
        stored = self.output.stored(shard)
        records = [stored.record_at(span) for span in spans]
        by_file = {record["file_name"]: span for record, span in zip(records, spans, strict=True)}
        for picture in pictures(self.output, shard, records, takes):
            yield by_file[picture.record["file_name"]], picture

    def failed(self) -> Iterable[str]:
        return [failure.image_id for failure in self.output.failures()]

    def broken(self, what: str) -> OutputError:
        return _broken(self.output, what)


def open_output(output: Output) -> OutputSource:
    """The output as a source. Raises OutputError where its metadata cannot be read."""
    shards, split = tuple(output.shards()), Split(Places(output, last_job(output)))
    for shard, stored in output.in_turn(shards):
        for span, record in stored.located():
            split.add(shard, span, record)
    return OutputSource(output, shards, split)


def pictures(
    output: Output, shard: int, records: Iterable[Record], takes: Callable[[Record], bool]
) -> Iterator[Picture]:
    """The pictures of these records of a shard that are taken, in its order, read as they are asked for.

    Raises OutputError naming the first whose file is missing, has a second record, or does not have the
    SHA-256 of its record, or is no picture.
    """
    stored = output.stored(shard)
    wanted: dict[str, Record] = {}
    for record in records:
        if takes(record) and wanted.setdefault(record["file_name"], record) is not record:
            raise _broken(output, f"{stored.label}: two records are of {record['file_name']}")
    for name, data in stored.pictures(wanted.keys()):
        picture = Picture(wanted.pop(name), data)
        if not picture.is_whole():
            raise _broken(output, f"{stored.label}: {name} is not the picture that was written (SHA-256)")
        try:
            # A record of anybody's may have the SHA-256 of any file, and a link in its place lead there.
            read_picture(data)
        except ValueError as error:
            raise _broken(output, f"{stored.label}: {name} {error}") from None
        yield picture
    if wanted:
        raise _broken(output, f"{stored.label}: {next(iter(wanted))} is missing or cannot be read")


def _broken(output: Output, what: str) -> OutputError:
    return OutputError(
        f"{what}; nothing was exported: `imagemill doctor {output.label}` names all that is wrong there, and "
        "with --repair sets it aside"
    )
