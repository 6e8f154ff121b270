"""Opens files of strangers: plain ones alone, so that no pipe blocks and no device goes on for ever."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from jobs.errors import InputError


def open_plain(path: Path) -> BufferedReader:
    """The file, open to be read from its begin. Raises InputError for what is no plain file, OSError."""
    # Without O_NONBLOCK the opening of a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError("is no plain file: name the file itself")
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")
