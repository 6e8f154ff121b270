"""An output's lock, OUT/.imagemill/lock: held by the `imagemill run` that renders there, and its worker."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import JobError
from jobs.lock import try_lock
from jobs.output.output import Output
from jobs.plain_file import open_or_make


@contextmanager
def locked(output: Output, patience: float = 15.0) -> Iterator[int]:
    """Keeps every other `imagemill run` out of the output, which is prepared; yields the lock's descriptor.

    A process that inherits the descriptor holds the lock too, until it ends. Waits up to `patience`
    seconds for the process that holds it, then raises JobError with that process's id. On a file system
    without locks, nothing is locked. With a bucket, the lock is that of this machine alone.
    """
    descriptor = open_or_make(output.private / "lock", os.O_RDWR)
    # The descriptor is closed and never unlocked: unlocking would take the lock from a process that has
    # it too. The file stays: if it were removed, one process could lock the old one, another a new one.
    try:
        _lock(output, descriptor, patience)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(output: Output, descriptor: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            if try_lock(descriptor):
                return
        except OSError as error:
            if error.errno in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}:
                return
            raise
        if time.monotonic() >= deadline:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise JobError(
                f"output {output.label}: another `imagemill run` (pid {holder}) is already rendering "
                f"there, or its worker is still ending: follow it with `imagemill watch`, wait for it, "
                f"or stop it (kill {holder}) and run the same command to go on"
            )
        time.sleep(0.1)
