"""Locks on files, by flock.

The kernel lets go of a lock when the last process that holds it ends, however it dies.
"""

from __future__ import annotations

import fcntl


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
