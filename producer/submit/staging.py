"""Shards of a job on their way to the ledger, which takes them in one step once all are there."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from jobs.ledger.job import Staged
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import Shard, encode_shard
from jobs.request import Entry, ImageRequest

CHUNK, CHUNK_BYTES = 64, 8 << 20
"""Shards sent to Redis in one call, and their bytes (those of the last may be more)."""


def chunk_is_full(shards: int, size: int) -> bool:
    """Whether so many shards, of `size` bytes together, are sent before another is packed."""
    return shards >= CHUNK or size >= CHUNK_BYTES


class Staging:
    """Packs shards and sends them chunk by chunk; what is not taken in the end expires."""

    def __init__(self, ledger: Ledger, base: ImageRequest) -> None:
        """`base`: the job's own settings."""
        self._ledger, self._base = ledger, base
        self._word, self._sent = secrets.token_hex(8), 0
        self._unsent: list[tuple[int, bytes]] = []

    def add(self, number: int, entries: Sequence[tuple[int, Entry]]) -> None:
        """Takes one shard: its number, and its entries, one or more, by their indices in the job."""
        indices, requests = zip(*entries, strict=True)
        self._unsent.append((number, encode_shard(Shard(indices, requests), self._base)))
        if chunk_is_full(len(self._unsent), sum(len(blob) for _, blob in self._unsent)):
            self._send()

    def staged(self, first_waiting: int, waiting: int) -> Staged:
        """All of them, once all are there."""
        self._send()
        return Staged(self._word, self._sent, first_waiting, waiting)

    def _send(self) -> None:
        if self._unsent:
            self._ledger.stage(self._word, self._unsent)
            self._sent += len(self._unsent)
            self._unsent = []
