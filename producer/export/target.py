"""Where an export goes: it appears whole or not at all, and never over something else."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from jobs.errors import OutputError
from jobs.lock import try_lock
from jobs.output.store import Unreachable


def check_free(target: Path, source: Path | str, *, folder: bool) -> None:
    """Raises OutputError where an export of `source` cannot appear at `target`. Both are absolute.

    `folder`: it will be a folder, which may be there and empty; else a file, which must not.
    """
    if target == source:
        raise OutputError(f"{target}: is the export's own source: name another place")
    if source in target.parents:
        raise OutputError(f"{target}: is inside the output that is exported: name a place outside it")
    try:
        if not target.parent.is_dir():
            raise OutputError(f"{target}: there is no folder {target.parent}: make it, or name another place")
        if not os.path.lexists(target) or (folder and target.is_dir() and not any(target.iterdir())):
            return
    except OSError as error:
        raise OutputError(f"{target}: cannot be read ({error.strerror}): name another place") from None
    what = "a folder that is new or empty" if folder else "a file that is not there yet"
    raise OutputError(f"{target}: already exists: remove it, or name {what}")


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yields a hidden path next to `target`, to be made a folder or a file; at the end it becomes `target`.

    However the block ends otherwise, Ctrl-C included, nothing is left of it; what a process that was killed
    left is removed by the next one for the same target. Raises OutputError where the system does not let it
    be written.
    """
    folder = target.with_name(f".{target.name}.{secrets.token_hex(6)}.export")
    hidden = folder / target.name
    try:
        _remove_abandoned(target)
        folder.mkdir()
        with ExitStack() as stack:
            # A file system without locks locks nothing, and then nothing abandoned is removed either.
            with suppress(OSError):
                stack.enter_context(_locked(folder))
            yield hidden
            # Once for all of it: a sync for each of a million files would take longer than the rest.
            os.sync()
            if not hidden.is_dir() and os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "it was made meanwhile")
            hidden.rename(target)
    except Unreachable:
        raise
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        remedy = "free some space, or name a place on another disk" if full else "name another place"
        raise OutputError(
            f"{target}: cannot be written ({error.strerror}): {remedy}; nothing was left there"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(target: Path) -> None:
    """Removes what interrupted exports to `target` left next to it, unless a living process holds it."""
    names = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{12}\.export")
    for left in list(target.parent.iterdir()):
        if names.fullmatch(left.name):
            with suppress(OSError), _locked(left):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder until the end or this process's death. Raises OSError where another one does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if not try_lock(descriptor):
            raise BlockingIOError(errno.EWOULDBLOCK, "another export writes there", str(folder))
        yield
    finally:
        os.close(descriptor)
