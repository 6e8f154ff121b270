"""Shards in the groups in which they are sent to Redis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

MOST_SHARDS, MOST_BYTES = 64, 8 << 20
"""Shards that are sent in one call, and their bytes; the last shard of a chunk may go beyond these."""

_Shard = TypeVar("_Shard")


class Chunk(Generic[_Shard]):
    """Shards that are sent in one call."""

    def __init__(self) -> None:
        self.shards: list[_Shard] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether it is sent before another shard is added."""
        return len(self.shards) >= MOST_SHARDS or self._bytes >= MOST_BYTES

    def add(self, shard: _Shard, size: int) -> None:
        """Adds a shard of `size` bytes."""
        self.shards.append(shard)
        self._bytes += size


def in_chunks(shards: Iterable[tuple[_Shard, int]]) -> Iterator[tuple[list[_Shard], bool]]:
    """Yields chunks of the shards, each given with its bytes, and whether a chunk is the last.

    Yields one empty chunk when there are no shards.
    """
    chunk = Chunk[_Shard]()
    for shard, size in shards:
        if chunk.full:
            yield chunk.shards, False
            chunk = Chunk[_Shard]()
        chunk.add(shard, size)
    yield chunk.shards, True
