"""Where pictures lie in tars, so that one is read without its tar being walked through again."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field, replace

from jobs.errors import OutputError, OutputRefused
from jobs.output.stored_shard import Span
from jobs.output.webdataset import TarShard


@dataclass(frozen=True, slots=True)
class TarIndex:
    """Of each image of a tar its place in the shard and where its picture and its record lie."""

    positions: array[int] = field(default_factory=lambda: array("H"))
    """Ascending."""
    pictures: array[int] = field(default_factory=lambda: array("Q"))
    picture_sizes: array[int] = field(default_factory=lambda: array("L"))
    records: array[int] = field(default_factory=lambda: array("Q"))
    record_sizes: array[int] = field(default_factory=lambda: array("L"))
    trouble: str = ""
    """Why it ends before the tar does; empty as a rule."""

    @classmethod
    def of(cls, tar: TarShard) -> TarIndex:
        """That of a tar, up to where it is damaged. Raises OutputError where it is away, or is refused."""
        index = cls()
        try:
            index._walk(tar)
        except OutputRefused:
            raise
        except OutputError as error:
            if not tar.committed():
                raise
            return replace(index, trouble=str(error))
        return index

    def _walk(self, tar: TarShard) -> None:
        for place in tar.places():
            position = tar.names.position(tar.number, place.file_name)
            if position is None or (self.positions and position <= self.positions[-1]):
                continue  # not as imagemill writes it; `doctor` tells of it
            self.positions.append(position)
            self.pictures.append(place.picture.start)
            self.picture_sizes.append(place.picture.size)
            self.records.append(place.json.start)
            self.record_sizes.append(place.json.size)

    @property
    def lasting(self) -> bool:
        """Whether the tar says so."""
        return True

    @property
    def bytes(self) -> int:
        """How many it holds."""
        columns = (self.positions, self.pictures, self.picture_sizes, self.records, self.record_sizes)
        return sum(len(one) * one.itemsize for one in columns) + 500

    def at(self, position: int) -> int | None:
        """The row of the image at a place in the shard; None where no picture is there."""
        row = self.row(position)
        return row if row < len(self.positions) and self.positions[row] == position else None

    def row(self, position: int) -> int:
        """The first row at or after a place in the shard."""
        return bisect_left(self.positions, position)

    def ends_before(self, position: int) -> bool:
        """Whether damage hides what may lie before a place in the shard, after all that is known."""
        return bool(self.trouble) and (not self.positions or self.positions[-1] + 1 < position)

    def picture(self, row: int) -> Span:
        """Where the row's picture lies."""
        return Span(self.pictures[row], self.picture_sizes[row])

    def record(self, row: int) -> Span:
        """Where the row's record lies."""
        return Span(self.records[row], self.record_sizes[row])
