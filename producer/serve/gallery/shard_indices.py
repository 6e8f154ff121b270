"""The indices of the shards that were looked at last: pages ask for many images of one shard at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Final
from weakref import WeakValueDictionary

from jobs.output.files import FolderShard
from jobs.output.store import OutputStore
from jobs.output.webdataset import TarShard
from producer.serve.gallery.bounded_cache import BoundedCache
from producer.serve.gallery.folder_index import FolderIndex
from producer.serve.gallery.tar_index import TarIndex

_HELD: Final = 4 << 20
"""Bytes of all indices together: 34 an image of a tar, 18 of a folder."""
_REMOTE_SECONDS: Final = 60
"""How long what a bucket's tar says is taken for what it says now: its date takes a request."""
Index = TarIndex | FolderIndex


class ShardIndices:
    """Where the images of shards lie; threads may share it."""

    def __init__(self) -> None:
        self._cache: BoundedCache[Index] = BoundedCache(_HELD, lambda index: index.bytes)
        self._walks: WeakValueDictionary[Hashable, Lock] = WeakValueDictionary()
        self._lock = Lock()

    def of_tar(self, tar: TarShard) -> TarIndex:
        """The tar's index. Raises as `TarIndex.of`."""
        index = self._of((tar.label, _state_of_tar(tar)), lambda: TarIndex.of(tar))
        assert isinstance(index, TarIndex)
        return index

    def of_folder(self, folder: FolderShard, store: OutputStore) -> FolderIndex:
        """The index of a folder of the output that lies in `store`."""
        index = self._of((folder.label, _state_of_folder(folder)), lambda: FolderIndex.of(folder, store))
        assert isinstance(index, FolderIndex)
        return index

    def _of(self, key: Hashable, made: Callable[[], Index]) -> Index:
        found = self._cache.get(key)
        if found is not None:
            return found
        # One thread walks through a shard. Those of other shards may take long.
        with self._lock:
            walk = self._walks.setdefault(key, Lock())
        with walk:
            found = self._cache.get(key)
            if found is None:
                found = made()
                if found.lasting:
                    self._cache.put(key, found)
            return found


# What changes when a shard does: an output may be removed and rendered again.


def _state_of_tar(tar: TarShard) -> float:
    if tar.store.is_remote:
        return time.monotonic() // _REMOTE_SECONDS
    try:
        return tar.store.modified(tar.name)
    except OSError:
        return 0.0  # the reading says what is wrong


def _state_of_folder(folder: FolderShard) -> tuple[int, ...]:
    try:
        state = folder.metadata_file.stat()
    except OSError:
        return ()
    return state.st_ino, state.st_mtime_ns, state.st_size
