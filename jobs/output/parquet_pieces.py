"""Reads a parquet that anyone may have written: some rows at a time, by what they hold and not by number.

A dictionary of one text of 50 MB and 40 rows that name it take 2 KB in the file and 2 GB as texts. So texts
stay in their dictionaries until a piece is known to be small enough.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import FileMetaData, ParquetFile

_BUFFER: Final = 1 << 20
"""Bytes read at a time: without it pyarrow holds a whole column of a row group, often all of the file."""
MOST: Final = 64 << 20
"""Bytes of a piece, and of a row."""
_PACKED_FROM, _PACKED = 4 << 30, 200
"""Bytes that a row group may unpack to, whatever the file's size, and how many times that size: columns that
nobody reads, all of zeros, count too."""
_ROWS_FROM, _ROWS_A_BYTE = 20_000_000, 16
"""Rows that a file may have, whatever its size, and how many for each byte of it: equal rows take next to no
room, and hours to read."""
_FEWEST = 4
"""Rows at a time where nothing tells how much they hold."""


class TooMuch(ValueError):
    """A row or a file holds more than any may; `row` is its number from 1, or None where it is not known."""

    def __init__(self, what: str, row: int | None = None) -> None:
        super().__init__(what)
        self.row = row


@dataclass(frozen=True, slots=True)
class BoundedParquet:
    """An open parquet."""

    file: BinaryIO
    metadata: FileMetaData
    schema: pyarrow.Schema
    """As it is written."""
    checksums: bool

    def pieces(
        self, columns: Sequence[str], rows: int, most: int = MOST
    ) -> Iterator[tuple[int, pyarrow.RecordBatch]]:
        """Up to `rows` rows of these columns at a time, fewer where they hold more than `most` bytes, and the
        number of the first of them, from 1. Columns of texts are texts.

        Raises TooMuch for a row of more than `most` bytes, and what pyarrow raises.
        """
        number = 1
        for group in range(self.metadata.num_row_groups):
            for batch in self._batches(group, columns, rows, most):
                # Of a damaged file numbers may point beyond a dictionary, where other memory lies.
                batch.validate(full=True)
                for piece in _halved(batch, most, number):
                    yield number, _decoded(piece)
                    number += piece.num_rows

    def _batches(
        self, group: int, columns: Sequence[str], rows: int, most: int
    ) -> Iterator[pyarrow.RecordBatch]:
        """The rows of a group.

        Within objects and lists pyarrow gives no dictionaries where the writer gave one up for texts as they
        are. Then no text is larger than the group, and a few rows are read at a time.
        """
        import pyarrow

        done = 0
        try:
            for batch in self._table(inner=True).iter_batches(rows, [group], columns, use_threads=False):
                yield batch
                done += batch.num_rows
            return
        except pyarrow.ArrowNotImplementedError:
            pass
        size = self.metadata.row_group(group).total_byte_size
        fewer = min(rows, max(_FEWEST, most // max(1, size)))
        for batch in self._table(inner=False).iter_batches(fewer, [group], columns, use_threads=False):
            if done < batch.num_rows:
                yield batch.slice(done)
            done = max(0, done - batch.num_rows)

    def _table(self, *, inner: bool) -> ParquetFile:
        """The file with texts as dictionaries, those within objects and lists if `inner`."""
        from pyarrow.parquet import ParquetFile

        leaves = [self.metadata.schema.column(index) for index in range(self.metadata.num_columns)]
        # The column a.b and b in the column a have one path, by which pyarrow finds one of them.
        times = Counter(leaf.path for leaf in leaves)
        return ParquetFile(
            self.file,
            metadata=self.metadata,
            read_dictionary=[
                leaf.path
                for leaf in leaves
                if leaf.physical_type == "BYTE_ARRAY"
                and (inner or "." not in leaf.path)
                and times[leaf.path] == 1
            ],
            buffer_size=_BUFFER,
            pre_buffer=False,
            page_checksum_verification=self.checksums,
        )


def open_bounded(file: BinaryIO, *, checksums: bool = False) -> BoundedParquet:
    """A parquet. Raises pyarrow's errors for what is none, ValueError for one that unpacks to too much."""
    from pyarrow.parquet import ParquetFile

    plain = ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
    metadata = plain.metadata
    size, rows = file.seek(0, os.SEEK_END), 0
    # Not column by column: pyarrow ends the process where their metadata are damaged.
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        if group.total_byte_size > max(_PACKED_FROM, _PACKED * size):
            raise TooMuch(f"unpacks from {size:,} to {group.total_byte_size:,} bytes")
        rows += group.num_rows
    if rows > max(_ROWS_FROM, _ROWS_A_BYTE * size):
        raise TooMuch(f"has {rows:,} rows in {size:,} bytes, so most say the same")
    return BoundedParquet(file, metadata, plain.schema_arrow, checksums)


def _halved(batch: pyarrow.RecordBatch, most: int, number: int) -> Iterator[pyarrow.RecordBatch]:
    if sum(map(_held, batch.columns)) <= most:
        yield batch
    elif batch.num_rows <= 1:
        raise TooMuch(f"holds more than {most >> 20} MiB", number)
    else:
        half = batch.num_rows // 2
        yield from _halved(batch.slice(0, half), most, number)
        yield from _halved(batch.slice(half), most, number + half)


def _held(column: pyarrow.Array) -> int:
    """Bytes that the values take without their dictionaries."""
    from pyarrow import compute, types

    kind = column.type
    if types.is_dictionary(kind):
        lengths = compute.binary_length(column.dictionary).take(column.indices)
        total = compute.sum(lengths).as_py()
        return 4 * len(column) + (0 if total is None else int(total))
    if types.is_struct(kind):
        return len(column) + sum(map(_held, column.flatten()))
    if types.is_map(kind):
        return 8 * len(column) + _held(column.keys) + _held(column.items)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return 8 * len(column) + _held(column.flatten())
    return int(column.nbytes)


def _decoded(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    import pyarrow
    from pyarrow import types

    columns = [one.dictionary_decode() if types.is_dictionary(one.type) else one for one in batch.columns]
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)
