"""A file's hash, and its state, by which a change while it is read is noticed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from jobs.plain_file import open_plain


class FileState(NamedTuple):
    """What shows a change of a file: every change alters at least one of these."""

    inode: int
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""


def file_state(file: Path | int) -> FileState:
    """The state of the file, by its path or its open descriptor. Raises OSError."""
    status = os.fstat(file) if isinstance(file, int) else file.stat()
    return FileState(status.st_ino, status.st_size, status.st_mtime_ns)


def file_sha256(path: Path) -> str:
    """The hex SHA-256 of the file, read as a stream. Raises OSError, also for what is no plain file."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
