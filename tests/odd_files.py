"""Things that lie where a file should, as nobody's program writes them, and what reading one may cost."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.faults.bounds import bounded

HUGE: Final = 8 << 30
"""Bytes of a sparse file, which takes no room."""
DEEP: Final = b"[" * 200_000


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


def _socket(path: Path) -> None:
    import socket

    # The name of a socket has 107 bytes at most.
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


ODD: Final[dict[str, Callable[[Path], None]]] = {
    "pipe": _pipe,
    "device": _device,
    "sparse": _sparse,
    "socket": _socket,
}
"""Each makes what has its name at a path where nothing is."""


def put(path: Path, kind: str) -> None:
    """Puts what `kind` of ODD says in the place of a file."""
    path.unlink(missing_ok=True)
    ODD[kind](path)


@contextmanager
def cheap(folder: Path, most: int = 64 << 20) -> Iterator[None]:
    """The block ends within a second of CPU, writes nothing but below `folder`, and Python holds no more than
    `most` bytes in it."""
    tracemalloc.start()
    try:
        with bounded(folder):
            yield
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < most, f"{held:,} bytes"
