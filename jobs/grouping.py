"""Requests into shards of one size each, as a stream: what shares a shard can share a worker's forwards."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

from jobs.expand import Identified
from jobs.request import Entry

MOST_OPEN = 64
"""Shards that are being filled at a time; a manifest of more sizes than that gets smaller shards."""


class Part(NamedTuple):
    """The entries of one shard, and how far the stream was read when it was full."""

    entries: list[Entry]
    taken: int
    """Requests read until then."""
    held: int
    """Of those, the ones that the output held already and that are in no shard."""


def parts(
    entries: Iterable[Identified], held_ids: Container[str], shard_size: int, most_open: int = MOST_OPEN
) -> Iterator[Part]:
    """Every shard of a job, each of one height and width: model and precision are the job's own.

    A shard ends when it holds `shard_size` entries; when `most_open` others are open, the one that was begun
    first ends early; those left come last, in the order in which they were begun, and after them an empty
    one that tells how far the whole stream went. Entries whose image_id is among `held_ids` are left out. The
    same entries, of which the same are held, give the same parts.
    """
    open_shards: dict[tuple[int, int], list[Entry]] = {}
    taken = held = 0
    for image_id, entry in entries:
        taken += 1
        if image_id in held_ids:
            held += 1
            continue
        request = entry.request
        size = (request.height, request.width)
        part = open_shards.get(size)
        if part is None:
            if len(open_shards) == most_open:
                yield Part(open_shards.pop(next(iter(open_shards))), taken, held)
            part = open_shards[size] = []
        part.append(entry)
        if len(part) == shard_size:
            yield Part(open_shards.pop(size), taken, held)
    for part in open_shards.values():
        yield Part(part, taken, held)
    yield Part([], taken, held)
