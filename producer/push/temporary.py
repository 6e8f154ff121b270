"""The folder for what is made on the way up: it goes at the end, or with a later push after a kill."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from jobs.lock import try_lock

_PREFIX: Final = "imagemill-push-"
_MOMENT: Final = 60.0


@contextmanager
def push_folder() -> Iterator[Path]:
    """Yields a new folder in the system's temporary one (TMPDIR), which goes when the block ends."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            _remove_abandoned(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a file system without locks
            try_lock(held)
        yield folder
    finally:
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Removes it unless a living process holds it. Raises OSError where it is not this user's."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        state = os.fstat(held)
        # A new one is locked a moment after it was made.
        old = time.time() - state.st_mtime > _MOMENT
        if state.st_uid == os.getuid() and old and try_lock(held):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)
