"""Locks on files, by flock.

The kernel lets go of a lock when the last process that holds it ends, however it dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock the open file or folder; False when another process's lock prevents it.

    An exclusive lock (the default) keeps every other one out, a `shared` one keeps exclusive ones out. A
    process that inherits the descriptor holds the lock, too. Raises OSError where the file system has none.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_name(descriptor: int) -> str:
    """What no other locked file is called, on any machine; "" where the file is not locked, or Linux is not
    what locks it.

    Who has locked a file of that name therefore knows that nobody else has it locked.
    """
    try:
        if not try_lock(descriptor):
            return ""
        boot, file = _BOOT.read_bytes(), os.fstat(descriptor)
    except OSError:
        return ""
    return hashlib.sha256(b"%s %d %d" % (boot, file.st_dev, file.st_ino)).hexdigest()[:16]
