"""What the two command lines do around their work: streams that are odd, and folders that are, cost one line.

An 8-bit locale, a standard output that is closed or full, a working folder that was removed, a path that is
too long: a shell brings these about, and none is a defect with a traceback.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import OutputError, SettingsError, StandardOutputError

_SHOWN = 60
"""Characters of each end of a long path that a message shows."""


@contextmanager
def odd_surroundings() -> Iterator[None]:
    """Makes the standard streams take what is printed; what the block meets of these is an ImagemillError.

    What standard output's encoding lacks is printed as `?`. A standard stream that is closed is /dev/null.
    Raises StandardOutputError where standard output cannot be written, once; the rest is dropped.
    """
    _open_closed_streams()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(sys.stdout)
    try:
        yield
    except FileNotFoundError:
        if _working_folder_is_there():
            raise
        raise SettingsError(
            "the folder that this was started in has been removed: `cd` to one that is there"
        ) from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or error.filename is None:
            raise
        raise OutputError(
            f"{_ends(os.fsdecode(error.filename))}: no path may be so long: name a shorter one"
        ) from None


@contextmanager
def done_all_the_same(what: str) -> Iterator[None]:
    """Adds to a StandardOutputError of the block what was done before: the caller must know it."""
    try:
        yield
    except StandardOutputError as error:
        raise StandardOutputError(f"{error}; all the same, {what}") from None


class _Output(io.FileIO):
    """Standard output, whose failure is told once."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            raise  # who read it has gone, and wants no more: click ends the command quietly
        except OSError as error:
            # What is still in buffers must not fail again when Python ends.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            raise StandardOutputError(f"standard output cannot be written ({error.strerror})") from None


def _stream(given: io.TextIOBase | None) -> io.TextIOWrapper:
    """Standard output in the encoding of the one that was given."""
    if given is None:
        return io.TextIOWrapper(io.BufferedWriter(_Output(1, "wb", closefd=False)), "utf-8", "replace")
    given.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "wb", closefd=False)),
        encoding=given.encoding,
        errors="replace",
        line_buffering=given.isatty(),
    )


def _open_closed_streams() -> None:
    """Makes them /dev/null: else the next file or socket gets the number, and with it what is printed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _working_folder_is_there() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _ends(path: str) -> str:
    return path if len(path) <= 3 * _SHOWN else f"{path[:_SHOWN]}…{path[-_SHOWN:]}"
