"""An output's files in a folder of this machine, or of a disk that several share.

A stage is a folder in the output's spool. Clearing it takes away the temporary file that a late process is
about to give its name to, so that it fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from jobs.errors import OutputError
from jobs.output.durable import fsync_folder, make_folder_within, write_atomically, written_atomically
from jobs.output.store import Found, RandomAccess, Stage
from jobs.plain_file import MAX_OF_OUTPUT, open_plain, plain_lines, read_plain

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_CLOSED = ".closed"
_SPOOL = ".imagemill/spool"


class LocalStore:
    """The files of the output in `folder`, which is absolute; see `OutputStore`."""

    __slots__ = ("folder", "label")
    is_remote = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.label = folder, str(folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalStore) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    def __repr__(self) -> str:
        return f"LocalStore({self.label!r})"

    def read(self, name: str, most: int = MAX_OF_OUTPUT) -> bytes:
        return read_plain(self.folder / name, most)

    def lines(self, name: str) -> Iterator[bytes]:
        return plain_lines(self.folder / name)

    @contextmanager
    def opened(self, name: str, *, whole: bool = False) -> Iterator[RandomAccess]:
        with open_plain(self.folder / name) as file:
            yield DescriptorAccess(file.fileno())

    def exists(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def is_taken(self, name: str) -> bool:
        return os.path.lexists(self.folder / name)

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def modified(self, name: str) -> float:
        return (self.folder / name).stat().st_mtime

    def list(self, folder: str = "") -> Iterator[Found]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self.folder / folder):
                yield Found(entry.name, entry.is_dir(), entry.is_file())

    def files_below(self, folder: str) -> Iterator[str]:
        for path, _, names in os.walk(self.folder / folder):
            for name in names:
                yield (Path(path) / name).relative_to(self.folder).as_posix()

    def replace(self, name: str, data: bytes, stage: Stage | None = None) -> None:
        write_atomically(self.folder / name, data, through=None if stage is None else stage.folder)

    def put_if_absent(self, name: str, file: Path, stage: Stage | None = None) -> None:
        target = self.folder / name
        if target.parent != self.folder:
            make_folder_within(target.parent)
        os.link(file, target)
        for folder in {target.parent, self.folder}:
            fsync_folder(folder)

    @contextmanager
    def written(self, name: str) -> Iterator[BinaryIO]:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(target) as file:
            yield file

    def copy(self, name: str, to: str) -> None:
        target = self.folder / to
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.folder / name, target)
        except OSError:
            shutil.copy2(self.folder / name, target)  # a file system without hard links
        fsync_folder(target.parent)

    def move(self, name: str, to: str) -> None:
        (self.folder / to).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).rename(self.folder / to)
        fsync_folder((self.folder / to).parent)

    def remove(self, name: str, stage: Stage | None = None) -> None:
        if stage is None:
            (self.folder / name).unlink(missing_ok=True)
        elif (self.folder / name).exists():
            (self.folder / name).rename(stage.folder / Path(name).name)

    def prepare(self) -> None:
        try:
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise OutputError(
                f"output {self.label} cannot be written ({error.strerror}: {error.filename}): "
                "make the folder writable for this user, free some space, or name another output"
            ) from None

    def check_can_put_if_absent(self, folder: Path) -> None:
        one, other = (folder / f".probe.{secrets.token_hex(6)}" for _ in range(2))
        try:
            one.touch()
            os.link(one, other)
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise OutputError(
                    f"{self.label}: its file system has no hard links ({error.strerror}), without which a "
                    "tar cannot appear whole and overwrite nothing: use layout: files, or another file system"
                ) from None
            raise
        finally:
            one.unlink(missing_ok=True)
            other.unlink(missing_ok=True)

    def close_stages(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Renames them: what they finished is still adopted from there."""
        for shard in _entries(self.folder / _SPOOL):
            if shard.is_symlink():
                continue
            for attempt in _entries(shard):
                if attempt.suffix != _CLOSED:
                    with contextlib.suppress(FileNotFoundError):
                        attempt.rename(attempt.with_name(attempt.name + _CLOSED))


class DescriptorAccess:
    """An open file of this machine, by its descriptor."""

    __slots__ = ("_descriptor", "size")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read_at(self, start: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, start)


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return list(folder.iterdir())
    return []
