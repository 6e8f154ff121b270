"""Where the files of an output lie: a folder (`local_store`) or a bucket (`bucket_store`).

Names are relative to the output and have slashes: `job.json`, `.imagemill/jobs/sunsets-1.json`.

A change that a late process must not make goes through a stage: what it writes lies there first, and only
what still lies there gets its name; in a bucket the lease is confirmed in between. A job that begins clears
all stages (`close_stages`), after the ledger has forgotten the leases of earlier ones: none of their attempts
can write anything any more, however long it slept. In a bucket a job's finishing clears them, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from jobs.plain_file import MAX_OF_OUTPUT

UPLOADS: Final = ".imagemill/uploads"
"""What is on its way into a bucket: the stages there."""
PROBES: Final = f"{UPLOADS}/probe-"
"""What a bucket is tried with: among uploads, so that what a killed process leaves goes with them."""
_PIECE: Final = 8 << 20


class Unreachable(OSError):
    """A store gave no answer, or asked to come later: the same call may be made again."""


class StageClosed(FileNotFoundError):
    """What lay in the stage was taken away: another job has begun in the output."""


class Found(NamedTuple):
    """An entry of a folder of the output."""

    name: str
    is_folder: bool
    is_file: bool
    """Neither of both: a pipe, say."""
    size: int | None = None
    """Bytes of a file, where a listing tells them: in a bucket."""


class RandomAccess(Protocol):
    """An open file."""

    size: int
    """Its bytes."""

    def read_at(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start`; fewer only at its end. Raises OSError."""


def pieces(file: RandomAccess) -> Iterator[bytes]:
    """All bytes of an open file, in pieces of at most 8 MiB. Raises OSError."""
    at = 0
    while piece := file.read_at(at, _PIECE):
        at += len(piece)
        yield piece


@dataclass(frozen=True, slots=True)
class Stage:
    """What one attempt puts in its place through."""

    folder: Path
    """Of this attempt alone, on the output's file system; with a bucket, on this machine."""
    name: str
    """The attempt's own: `00003/000002-5f3a9c1e`."""
    confirm: Callable[[], None]
    """Raises where the ledger has given the work to others."""


class OutputStore(Protocol):
    """The files of one output. Everything raises OSError, and Unreachable where it may be tried again."""

    label: str
    """As the manifest and the ledger call it."""
    is_remote: bool
    """Whether each reading takes a request over a network, so that few large ones are better."""

    # Reading.

    def read(self, name: str, most: int = MAX_OF_OUTPUT) -> bytes:
        """All bytes of a file. Raises FileNotFoundError, and TooLarge for more than `most` bytes."""

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a file, with their ends, one at a time. Raises TooLarge for one without end."""

    def opened(self, name: str, *, whole: bool = False) -> AbstractContextManager[RandomAccess]:
        """The file, to be read at any place; `whole`: all of it will be, so that what is far away is fetched
        first, to where temporary files are."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of the name."""

    def is_taken(self, name: str) -> bool:
        """Whether there is anything of the name."""

    def size(self, name: str) -> int:
        """The bytes of a file. Raises FileNotFoundError."""

    def modified(self, name: str) -> float:
        """When a file was written, in seconds since 1970. Raises FileNotFoundError."""

    def list(self, folder: str = "") -> Iterator[Found]:
        """The entries of a folder, in no order; none where it is not there."""

    def files_below(self, folder: str) -> Iterator[str]:
        """The names of all files at any depth of a folder, in no order; none where it is not there."""

    # Writing.

    def replace(self, name: str, data: bytes, stage: Stage | None = None) -> None:
        """Write a file whole, or not at all, also over another one."""

    def put_if_absent(self, name: str, file: Path, stage: Stage | None = None) -> None:
        """Give the name to the contents of a file of the stage's folder.

        Raises FileExistsError where the name is taken, FileNotFoundError (a bucket StageClosed) where the
        stage was closed.
        """

    def written(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file to write, which is there whole once the context ends, or not at all."""

    def copy(self, name: str, to: str) -> None:
        """Give the contents of a file another name, too. Nothing else may write there meanwhile."""

    def move(self, name: str, to: str) -> None:
        """Give a file another name; over what has it. Nothing else may write there meanwhile."""

    def remove(self, name: str, stage: Stage | None = None) -> None:
        """Take a file away, if it is there.

        Through a stage, in a bucket, it becomes an empty file: no store deletes on a condition, and a process
        that slept would take away what a newer job has written there since.
        """

    # Before a job, and as it begins.

    def prepare(self) -> None:
        """Make sure that it can be written. Raises OutputError with the remedy."""

    def check_can_put_if_absent(self, folder: Path) -> None:
        """Raises OutputError where a name cannot be given so that it overwrites nothing, as from `folder`."""

    def close_stages(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Take away what all stages hold: see the module.

        In a bucket, a copy of it may be under way then. `wait` waits so many seconds until it is done, which
        may be minutes for a large file, and may raise: who closes the stages next then waits in its place.
        """
