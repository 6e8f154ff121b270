"""What goes up of an output's shards, in one of two forms: tars as they are, or parquets with pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from jobs.errors import OutputError
from jobs.output.output import Output
from jobs.output.webdataset import TarShard
from jobs.wording import counted
from producer.doctor.examine_files import examine_shard
from producer.doctor.examine_webdataset import examine_tar
from producer.push.repository import RemoteFile


class Piece(NamedTuple):
    """A file that the repository should hold."""

    path: str
    """In the repository."""
    shard: int
    size: int
    """Bytes; of a parquet that is yet to be made, about so many."""


class Form(Protocol):
    """The files of one form, in the order of the shards. Raises OutputError where the output is not sound."""

    def pieces(self) -> Iterator[Piece]:
        """All of them."""

    def is_there(self, piece: Piece, held: RemoteFile) -> bool:
        """Whether a file of that path in the repository is this very one."""

    def made(self, piece: Piece, folder: Path) -> Path:
        """The file, proved to be sound: in `folder` if it had to be made, else where it lies."""


def check_sound(output: Output, shard: int) -> None:
    """Reads the shard to its last byte. Raises OutputError with the first thing that is wrong with it."""
    stored = output.stored(shard)
    is_tar = isinstance(stored, TarShard)
    found = examine_tar(output, shard) if is_tar else examine_shard(output, shard)
    # A worker may have been killed between a tar and its parquet; the job's finishing makes it.
    lacks_table = isinstance(stored, TarShard) and not output.store.exists(stored.parquet)
    problems = [one for one in found.problems if not (one.kind == "table" and lacks_table)]
    if problems:
        more = f" ({counted(len(problems) - 1, 'other problem')} in this shard)" if problems[1:] else ""
        raise unsound(output, f"{output.named(problems[0].place)}: {problems[0].what}{more}")


def unsound(output: Output, what: str) -> OutputError:
    """The error that an output is not as it was written."""
    return OutputError(
        f"{what}: `imagemill doctor {output.label}` names all that is wrong there, and with --repair sets it "
        "aside; then the same command goes on"
    )
