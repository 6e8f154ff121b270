"""`--to parquet`: a parquet with the pictures of each shard, as the hub and `load_dataset` read them.

A parquet is called by its fingerprint: a hash of its records, which have the SHA-256 of every picture, and of
the types of its columns. So what the repository holds already is known by its name, and is not made again.
Its columns, and the fields of its objects, are those of the shard's own records. So a top-up with further
ones leaves the others as they were: the card names all columns and types, and readers fill in nulls. Only
where a column's type became another one (numbers that became texts) it is that of the whole output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jobs.output.column_kinds import Kind, kind_of, merged
from jobs.output.output import Output
from producer.export.exact_records import free_name, is_exact
from producer.export.parquet import write_pictures
from producer.export.pictures import pictures
from producer.push.form import Piece, check_sound, unsound
from producer.push.paths import parquet_path
from producer.push.repository import RemoteFile

_VERSION: Final = "1"
"""Of what a parquet holds; another one gives all of them other names."""


@dataclass(slots=True)
class Outline:
    """What the parquet of a shard is made of, gathered record by record."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    """The columns that any of its records has."""
    images: int = 0
    digest: Any = field(default_factory=lambda: hashlib.sha256(_VERSION.encode()))
    """A hash of all records in their order."""

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one more record in."""
        self.images += 1
        kinds = self.kinds
        for name, value in record.items():
            kind = kind_of(value)
            known = kinds.setdefault(name, kind)
            if kind != known:
                kinds[name] = merged(known, kind)
        self.digest.update(json.dumps(record).encode() + b"\n")

    def columns(self, among: Mapping[str, Kind]) -> dict[str, Kind]:
        """The columns of the parquet, where those of all records are `among` these."""
        return {
            name: self.kinds[name] if _fits(self.kinds[name], kind) else kind
            for name, kind in among.items()
            if name in self.kinds
        }

    def fingerprint(self, columns: Mapping[str, Kind]) -> str:
        """16 hex digits that follow from the parquet's contents."""
        told = self.digest.copy()
        told.update(json.dumps(self.columns(columns)).encode())
        digits: str = told.hexdigest()
        return digits[:16]


@dataclass(slots=True)
class Parquets:
    """The parquets of an output as a `Form`."""

    output: Output
    outlines: Mapping[int, Outline]
    """By the numbers of the shards; those without pictures have no parquet."""
    columns: Mapping[str, Kind]
    """Those of all records."""

    def pieces(self) -> Iterator[Piece]:
        for shard, outline in self.outlines.items():
            if outline.images:
                path = parquet_path(shard, outline.fingerprint(self.columns))
                yield Piece(path, shard, self.output.stored(shard).size())

    def is_there(self, piece: Piece, held: RemoteFile) -> bool:
        return True  # its name says what is in it

    def made(self, piece: Piece, folder: Path) -> Path:
        check_sound(self.output, piece.shard)
        records = list(self.output.records(piece.shard))
        again = Outline()
        for record in records:
            again.add(record)
        if parquet_path(piece.shard, again.fingerprint(self.columns)) != piece.path:
            raise unsound(self.output, f"shard {piece.shard}: its metadata changed during the push")
        kinds = again.columns(self.columns)
        file = folder / piece.path.rpartition("/")[2]
        exact = all(is_exact(record, kinds) for record in records)
        column = None if exact else free_name(self.columns)
        taken = pictures(self.output, piece.shard, records, lambda record: True)
        write_pictures(file, taken, kinds, column)
        return file

    def json_column(self) -> str | None:
        """The column of JSON that some parquet has, as an export has it; None where none has."""
        for shard, outline in self.outlines.items():
            kinds = outline.columns(self.columns)
            if not all(is_exact(record, kinds) for record in self.output.records(shard)):
                return free_name(self.columns)
        return None


def _fits(own: Kind, kind: Kind) -> bool:
    """Whether readers give a column of the one kind as the other, values unchanged."""
    if own is None:
        return not isinstance(kind, (list, dict))
    if isinstance(own, dict) and isinstance(kind, dict):
        return all(_fits(each, kind[name]) for name, each in own.items())
    if isinstance(own, list) and isinstance(kind, list):
        return _fits(own[0], kind[0])
    return own == kind
