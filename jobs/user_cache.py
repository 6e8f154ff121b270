"""The user's cache folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder(name: str) -> Path:
    """A folder of imagemill's own in the user's cache, below XDG_CACHE_HOME; it may not exist."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base is not None and Path(base).is_absolute():
        return Path(base) / "imagemill" / name
    return Path(os.path.expanduser("~")) / ".cache" / "imagemill" / name  # noqa: PTH111 - raises nothing


def remember(file: Path, text: str) -> None:
    """Writes a file of the cache whole; does nothing where that cannot be, as in a read-only home."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as writing:
                writing.write(text)
            Path(temporary).replace(file)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
    except OSError:
        return
