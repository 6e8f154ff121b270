"""Files that are there whole, and stay: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jobs.failpoints import failpoint

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable. A file system that cannot sync a folder is taken as it is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def make_folder_within(folder: Path) -> None:
    """Make a folder of an output, whose own folder is there. Raises FileExistsError for what is no folder of
    its own: a link may lead anywhere."""
    folder.mkdir(exist_ok=True)
    if folder.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))


@contextlib.contextmanager
def written_atomically(
    path: Path, through: Path | None = None, *, synced: bool = True, durable_name: bool = True
) -> Iterator[BinaryIO]:
    """Yields a file to write. At the end it is at `path`, whole and durable, or nothing has changed.

    Replaces what is there. `through`: the folder where it is written first, on the same file system; removing
    that folder stops the writer. `synced`: False spares what may be lost, or be half there, with the power.
    `durable_name`: False leaves the folder to a later `fsync_folder`. Raises OSError as the system gives it
    (ENOSPC: nothing is left behind).
    """
    folder = path.parent if through is None else through
    temporary = folder / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        failpoint("before write", path)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if synced:
                os.fsync(file.fileno())
        failpoint("before rename", path)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    failpoint("after rename", path)
    if synced and durable_name:
        fsync_folder(path.parent)


def write_atomically(path: Path, data: bytes, through: Path | None = None, *, synced: bool = True) -> None:
    """Write the file whole and durable, or not at all, as `written_atomically` does."""
    with written_atomically(path, through, synced=synced) as file:
        file.write(data)


def remove_temporaries(folder: Path) -> None:
    """Takes away what killed writers left in a folder; one that is alive gets FileNotFoundError."""
    for file in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(file.name):
            file.unlink(missing_ok=True)
