"""`--to webdataset`: the committed tars as they are, each with its parquet, which lists it as a table.

Those of a bucket are copied to the temporary folder on their way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from jobs.output.output import Output
from jobs.output.store import pieces
from jobs.output.webdataset import TarShard
from producer.push.form import Piece, check_sound
from producer.push.paths import tar_path
from producer.push.repository import RemoteFile, git_blob


@dataclass(slots=True)
class Tars:
    """The tars of an output as a `Form`."""

    output: Output
    shards: Sequence[int]
    _proved: int | None = field(default=None, init=False)
    """The shard that was proved last."""

    def pieces(self) -> Iterator[Piece]:
        for shard in self.shards:
            stored, store = self._stored(shard), self.output.store
            yield Piece(tar_path(shard, stored.name), shard, store.size(stored.name))
            with suppress(FileNotFoundError):  # of a bucket, `exists` would be one more request
                yield Piece(tar_path(shard, stored.parquet), shard, store.size(stored.parquet))

    def is_there(self, piece: Piece, held: RemoteFile) -> bool:
        if held.size != piece.size:
            return False
        if held.sha256 is None:
            return held.blob == git_blob(self.output.store.read(self._name(piece)))
        digest = hashlib.sha256()
        with self.output.store.opened(self._name(piece)) as file:
            for part in pieces(file):
                digest.update(part)
        return held.sha256 == digest.hexdigest()

    def made(self, piece: Piece, folder: Path) -> Path:
        if self._proved != piece.shard:
            check_sound(self.output, piece.shard)
            self._proved = piece.shard
        if not self.output.in_bucket:
            return self.output.path / self._name(piece)
        made = folder / piece.path.replace("/", "-")
        with self.output.store.opened(self._name(piece)) as file, made.open("xb") as copy:
            copy.writelines(pieces(file))
        return made

    def _name(self, piece: Piece) -> str:
        stored = self._stored(piece.shard)
        return stored.name if piece.path.endswith(".tar") else stored.parquet

    def _stored(self, shard: int) -> TarShard:
        return cast(TarShard, self.output.stored(shard, "webdataset"))
