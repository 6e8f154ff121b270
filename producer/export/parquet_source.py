"""A parquet that `--to parquet` wrote as a source of pictures: read some rows at a time, never whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from jobs.errors import OutputError
from jobs.file_hash import FileState, file_state
from jobs.output.arrow_columns import arrow_type, check_pyarrow, kind_of_type
from jobs.output.column_kinds import Kind
from jobs.output.parquet_pieces import TooMuch, open_bounded
from jobs.output.stored_shard import sound_record
from jobs.plain_file import MAX_OF_OUTPUT, open_plain
from jobs.strict_json import strict_json
from jobs.wording import printable
from producer.export.exact_records import restored
from producer.export.parquet import IMAGE, MARK, ROWS
from producer.export.source import Picture, Record

if TYPE_CHECKING:
    import pyarrow

_OURS = ("file_name", "text", "image_id", "sha256")
"""A row without one of these is not a picture's."""
_PICTURES, _ROWS = 16, 1024
"""Rows held at a time, with pictures and without."""


class _Line(NamedTuple):
    number: int
    """The row's number, from 1."""
    record: Record
    image: pyarrow.StructScalar | None
    """None where pictures are not read."""


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A parquet as a `PictureSource`; `open_parquet` makes it."""

    path: Path
    columns: Mapping[str, Kind]
    """The columns of metadata, in their order."""
    json_column: str | None
    """The name of the column of JSON (`producer.export.exact_records`)."""
    state: FileState
    """The file's state when it was opened: it is read more than once, and must be the same each time."""

    def records(self) -> Iterator[Record]:
        return (line.record for line in self._lines(with_pictures=False))

    def pictures(self, takes: Callable[[Record], bool]) -> Iterator[Picture]:
        for line in self._lines(with_pictures=True):
            if not takes(line.record):
                continue
            image = None if line.image is None else line.image.as_py()
            if image is None or image["bytes"] is None:
                raise self.broken(f"{self.path}: row {line.number}: its picture is missing")
            picture = Picture(line.record, image["bytes"])
            if not picture.is_whole():
                name = line.record["file_name"]
                raise self.broken(
                    f"{self.path}: row {line.number}: {name} is not the picture that was written (SHA-256)"
                )
            yield picture

    def failed(self) -> Iterable[str]:
        return ()

    def broken(self, what: str) -> OutputError:
        return OutputError(
            f"{what}; nothing was exported: restore the file, or export the output that it was made of again"
        )

    def _lines(self, *, with_pictures: bool) -> Iterator[_Line]:
        names = [*self.columns] if self.json_column is None else [*self.columns, self.json_column]
        for start, batch in self._batches([IMAGE, *names] if with_pictures else names):
            for place, values in enumerate(batch.select(names).to_pylist()):
                record = self._record(start + place, values)
                yield _Line(start + place, record, batch.column(IMAGE)[place] if with_pictures else None)

    def _record(self, number: int, values: Record) -> Record:
        text = None if self.json_column is None else values.pop(self.json_column)
        try:
            record = restored(values, text, self.columns)
        except ValueError as error:
            what = printable(str(error))
            raise self.broken(f"{self.path}: row {number}: its {self.json_column} {what}") from None
        try:
            sound_record("", record)
        except OutputError as error:
            # The remedy for a shard does not suit a parquet.
            what = str(error).removeprefix(": ").partition("; ")[0]
            raise self.broken(f"{self.path}: row {number}: {what}") from None
        return record

    def _batches(self, names: list[str]) -> Iterator[tuple[int, pyarrow.RecordBatch]]:
        """Some rows at a time with these columns, and the number of the first of them."""
        import pyarrow

        number, size = 1, _PICTURES if IMAGE in names else _ROWS
        try:
            with open_plain(self.path) as file:
                self._check_same(file)
                table = open_bounded(file, checksums=True)
                for first, batch in table.pieces(names, size, MAX_OF_OUTPUT):
                    batch.validate(full=True)
                    yield first, batch
                    number = first + batch.num_rows
                # pyarrow skips a page that it does not recognize, without an error.
                if number <= table.metadata.num_rows:
                    raise ValueError(f"of {table.metadata.num_rows:,} rows no more are there")
                self._check_same(file)
        except TooMuch as error:
            where = "" if error.row is None else f"row {error.row}: "
            raise self.broken(f"{self.path}: {where}{printable(str(error))}") from None
        except (pyarrow.ArrowException, ValueError, OSError) as error:
            what = printable(str(error).partition("\n")[0])
            raise self.broken(f"{self.path}: row {number}: cannot be read ({what})") from None

    def _check_same(self, file: BinaryIO) -> None:
        if file_state(file.fileno()) != self.state:
            raise OutputError(f"{self.path}: changed while it was being read: run the same command again")


def open_parquet(path: Path) -> ParquetSource:
    """The parquet as a source. Raises OutputError for one that cannot give back its records and pictures."""
    check_pyarrow(str(path), "export the output that it was made of")
    import pyarrow

    try:
        with open_plain(path) as file:
            state = file_state(file.fileno())
            schema = open_bounded(file).schema
            metadata, fields = schema.metadata or {}, [(field.name, field.type) for field in schema]
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        what = printable(str(error).partition("\n")[0])
        raise _refused(path, f"cannot be read as a parquet ({what})") from None
    types = dict(fields)
    if types.pop(IMAGE, None) != arrow_type("image"):
        raise _refused(path, f"holds no pictures in a column {IMAGE!r}")
    if MARK not in metadata:
        raise _refused(
            path, "has no mark that its rows are exact: another program or an older imagemill wrote it"
        )
    json_column = _json_column(path, metadata[MARK])
    if json_column is not None and types.pop(json_column, None) != pyarrow.string():
        raise _refused(
            path, f"has no column {json_column!r} of text any more, though its schema's metadata names it"
        )
    for name in _OURS:
        if name not in types:
            raise _refused(path, f"has no column {name!r}")
    if len(types) + 1 + (json_column is not None) != len(fields):
        raise _refused(path, "has two columns of one name")
    columns: dict[str, Kind] = {}
    for name, type in types.items():
        try:
            columns[name] = kind_of_type(type)
        except ValueError as error:
            raise _refused(path, f"its column {name!r} {error}, which is no JSON") from None
    return ParquetSource(path, columns, json_column, state)


def _json_column(path: Path, mark: bytes) -> str | None:
    """The name of the column of JSON. Raises OutputError for what is no mark of this version."""
    try:
        stated = strict_json(mark)
        rows, column = stated["rows"], stated["column"]
    except (ValueError, KeyError, TypeError):
        rows, column = None, None
    if rows != ROWS or not isinstance(column, str | None):
        raise _refused(path, "has a mark that this imagemill does not know: a newer one wrote it")
    return column


def _refused(path: Path, what: str) -> OutputError:
    return OutputError(
        f"{path}: {printable(what)}; name an output, or a parquet that this version's `export --to parquet` "
        "wrote, with its pictures"
    )
