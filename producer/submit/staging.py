"""Shards of a job that are sent to the ledger, which takes all of them in one step at the end."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from jobs.entry import Entry
from jobs.ledger.job import Staged
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import Shard, encode_shard
from jobs.request import ImageRequest
from producer.submit.chunk import Chunk


class Staging:
    """Packs shards and sends them chunk by chunk; what the ledger does not take in the end expires."""

    def __init__(self, ledger: Ledger, base: ImageRequest, *, in_order: bool = True) -> None:
        """`base`: the job's own settings. `in_order`: whether indices are places, as in `Shard`."""
        self._ledger, self._base, self._in_order = ledger, base, in_order
        self._word, self._sent = secrets.token_hex(8), 0
        self._chunk = Chunk[tuple[int, bytes]]()

    def add(self, number: int, entries: Sequence[tuple[int, Entry]], inputs: Mapping[str, str] = {}) -> None:
        """Takes one shard: its number, its entries, one or more, by their indices in the job, and where
        files lie that the output does not keep."""
        indices, requests = zip(*entries, strict=True)
        blob = encode_shard(Shard(indices, requests, self._in_order, inputs), self._base)
        if self._chunk.full:
            self._send()
        self._chunk.add((number, blob), len(blob))

    def staged(self, first_waiting: int, waiting: int) -> Staged:
        """All staged shards, once all are there."""
        self._send()
        return Staged(self._word, self._sent, first_waiting, waiting)

    def _send(self) -> None:
        if self._chunk.shards:
            self._ledger.stage(self._word, self._chunk.shards)
            self._sent += len(self._chunk.shards)
            self._chunk = Chunk()
