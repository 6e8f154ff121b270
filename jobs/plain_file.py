"""Opens files that others may have made: plain ones alone, and reads no more of them than is asked for.

A pipe would be waited for, a device may never end, and a sparse file of gigabytes costs its maker nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, Final

from jobs.errors import OutputError
from jobs.strict_json import strict_json

_MIB: Final = 1 << 20
_BUFFER: Final = 1 << 16
MAX_CONFIG: Final = 8 * _MIB
"""Bytes of a model's configuration, or of another small file of JSON; as Python objects they take 20 times
as much at most."""
MAX_JSON: Final = 512 * _MIB
"""Bytes of a job's report, which has its manifest in JSON: the largest, of 64 MiB, grows threefold."""
MAX_VOCABULARY: Final = 64 * _MIB
"""Bytes of a tokenizer's file."""
_VOCABULARIES: Final = ("vocab.json", "tokenizer.json")
MAX_OF_OUTPUT: Final = 256 * _MIB
"""Bytes of one file in an output, tars and tables aside, or of one file in a tar: a picture of the largest
size has 200 million, and a shard's metadata fewer."""
LONGEST_LINE: Final = 64 * _MIB
"""Bytes of a line of JSON in an output: the longest prompt has a quarter of them."""
MAX_ORDER: Final = 1024 * _MIB
"""Bytes of the order of a job's lines, 8 a line."""


class NotPlain(OSError):
    """A folder, a pipe, a socket or a device is where a file should be."""


class TooLarge(OSError):
    """A file has more bytes than such a file may have."""


def open_plain(path: Path) -> BufferedReader:
    """The file, open to be read from its beginning; links are followed.

    Raises OSError, also for what is no plain file: it is not waited for.
    """
    # Without O_NONBLOCK the opening of a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotPlain(errno.EINVAL, "not a plain file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return BufferedReader(FileIO(descriptor, "rb"), _BUFFER)


def open_or_make(file: Path, flags: int) -> int:
    """A descriptor of a plain file to write in, made where there is none.

    Raises OutputError, also for a link: what is written there would be written elsewhere.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for a reader.
        descriptor = os.open(file, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file")
    except OSError as error:
        raise OutputError(
            f"{file}: cannot be opened ({error.strerror}): make it a file that this user may write"
        ) from None


def read_plain(path: Path, most: int = MAX_OF_OUTPUT) -> bytes:
    """All bytes of a plain file. Raises OSError, also for one of more than `most` bytes: it is not read."""
    with open_plain(path) as file:
        # Memory is taken for what is asked for.
        size = check_size(file, path, most)
        contents = file.read(size + 1)
        if len(contents) > size:  # it grew, or its file system calls it empty
            contents += file.read(most + 1 - len(contents))
    if len(contents) > most:
        raise _too_large(path, most)
    return contents


def plain_lines(path: Path) -> Iterator[bytes]:
    """The lines of a plain file, with their ends, one at a time. Raises OSError, also for one without end."""
    with open_plain(path) as file:
        while line := file.readline(LONGEST_LINE + 1):
            check_line(line, str(path))
            yield line


def check_line(line: bytes, named: str) -> None:
    """Raises TooLarge for a line, or a part of one, that is longer than any in an output."""
    if len(line) > LONGEST_LINE:
        raise TooLarge(errno.EFBIG, f"a line of more than {LONGEST_LINE // _MIB} MiB", named)


def check_size(file: BufferedReader, path: Path, most: int) -> int:
    """The bytes that an open file has, as the system says. Raises TooLarge for more than `most`."""
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise _too_large(path, most)
    return size


def read_json(path: Path, most: int = MAX_CONFIG) -> Any:
    """The JSON value in a plain file. Raises OSError as `read_plain` does, ValueError for any other text."""
    return strict_json(read_plain(path, most))


def read_config(path: Path) -> Any:
    """The same of a model's configuration or vocabulary, by the name that it has there."""
    return read_json(path, MAX_VOCABULARY if path.name in _VOCABULARIES else MAX_CONFIG)


def _too_large(path: Path, most: int) -> TooLarge:
    size = f"{most // _MIB:,} MiB" if most >= _MIB else f"{most:,} bytes"
    return TooLarge(errno.EFBIG, f"larger than {size}", str(path))
