"""Copies of a bucket's files in the user's cache; together they have a bound.

    CACHE/fetched/files/s3/BUCKET/KEY     a copy, under the file's own name
    CACHE/fetched/states/s3/BUCKET/KEY    which version of the file it is; last modified when it was last used
    CACHE/fetched/partial/                what is being fetched

No copy that this process has used is removed.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from jobs.errors import InputError
from jobs.location import SCHEMES, BucketPlace
from jobs.plain_file import read_plain
from jobs.user_cache import cache_folder

MOST = 20 << 30
"""Bytes of copies that are kept. The ones that were not used for longest go first."""
_FILES: Final = "files"
_ABANDONED: Final = 86400.0
"""Seconds after which what is being fetched, and nothing was added to, is what a killed process left."""
_BEGAN: Final = time.time()

Version = tuple[str, int]
"""What a store calls this version of a file, and its bytes."""


def copies_folder() -> Path:
    """Where all copies lie."""
    return cache_folder("fetched")


def copy_path(place: BucketPlace) -> Path:
    """Where the copy of a file, or of the files of a pattern, lies or would lie."""
    return copies_folder() / _FILES / place.scheme / place.bucket / place.prefix


def named(text: str) -> str:
    """The text with places in buckets instead of their copies, for a message or what an output keeps."""
    return _of_copies(str(copies_folder())).sub(r"\1://", text)


@cache
def _of_copies(folder: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(folder)}/{_FILES}/({'|'.join(SCHEMES)})/")


def kept_copy(place: BucketPlace, version: Version) -> Path | None:
    """The copy of this version, which counts as used now; None where there is none."""
    copy, state = copy_path(place), _state_path(place)
    try:
        noted = read_plain(state).decode()
        if not noted or noted != _state(copy, version):
            return None
        os.utime(state)
    except (OSError, ValueError):  # another process may take both away
        return None
    return copy


def keep_copy(place: BucketPlace, download: Callable[[Path], Version]) -> Path:
    """Replace the copy. `download` writes the file to a path, and returns its version.

    Raises OSError as the system gives it, and what `download` raises; nothing has changed then.
    """
    copy, state = copy_path(place), _state_path(place)
    for folder in (copy.parent, state.parent, _partial()):
        folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned()
    handle, temporary = tempfile.mkstemp(dir=_partial())
    try:
        os.close(handle)
        version = download(Path(temporary))
        Path(temporary).replace(copy)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    state.write_text(_state(copy, version), "utf-8")
    return copy


class _Room:
    """The bound: copies that this process has not used make room for new ones."""

    def __init__(self) -> None:
        self._held: int | None = None
        """Bytes of all copies, as far as this process knows."""

    def make(self, place: BucketPlace, size: int) -> None:
        """Remove copies until one of `size` bytes fits. Raises InputError where it cannot."""
        if self._held is None or self._held + size > MOST:
            self._held = self._left(size)
        self._held += size
        if self._held > MOST:
            raise InputError(
                f"{place}: with it, more than {MOST >> 30} GiB that lie in buckets would be copied here: "
                "copy the files to a folder first"
            )

    def _left(self, size: int) -> int:
        """The bytes of the copies that stay."""
        files, states = copies_folder() / _FILES, _states()
        copies: list[tuple[float, int, Path, Path]] = []
        for state in states.rglob("*"):
            copy = files / state.relative_to(states)
            with suppress(OSError):  # another process may take both away
                if state.is_file():
                    copies.append((state.stat().st_mtime, copy.stat().st_size, copy, state))
        held = sum(one for _, one, _, _ in copies)
        for last, one, copy, state in sorted(copies):
            if held + size > MOST and last < _BEGAN:
                held -= one
                state.unlink(missing_ok=True)
                copy.unlink(missing_ok=True)
        return held


make_room = _Room().make


def _states() -> Path:
    return copies_folder() / "states"


def _partial() -> Path:
    return copies_folder() / "partial"


def _remove_abandoned() -> None:
    """Takes away what killed processes left of files that they fetched."""
    for file in _partial().iterdir():
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > _ABANDONED:
                file.unlink()


def _state_path(place: BucketPlace) -> Path:
    return _states() / place.scheme / place.bucket / place.prefix


def _state(copy: Path, version: Version) -> str:
    """Which version of a file a copy is, and that it is this very copy; empty for one of another size."""
    status = copy.stat()
    called, size = version
    return f"{called} {size} {status.st_ino} {status.st_mtime_ns}" if status.st_size == size else ""
