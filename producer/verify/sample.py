"""Which images of an output are rendered again: drawn at random, equal for an equal seed, and spread."""

from __future__ import annotations

import heapq
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple

from jobs.errors import OutputError
from jobs.output.output import Output
from jobs.output.shard_names import ShardNames
from jobs.output.stored_shard import StoredShard
from jobs.request import PICTURES

FEWEST_SHARDS: Final = 256
"""Shards that are looked at: this many, or four for each image that is drawn if that is more."""
_TOLD_APART: Final = (
    "job_id", "model", "revision", "image_format", "height", "width", "loras", "textual_inversions",
    "controlnet", "ip_adapter", "rendered_mode", "rendered_precision", "rendered_rows", "rendered_device",
)  # fmt: skip
"""The columns whose values, beside the kinds of pictures that an image was painted from, make a kind."""


class Drawn(NamedTuple):
    """An image that is to be rendered again."""

    shard: int
    record: Mapping[str, Any]
    names: ShardNames

    @property
    def place(self) -> str:
        """`00003/000030012.png`, in either layout."""
        return f"{self.names.name(self.shard)}/{self.record['file_name']}"

    @property
    def image_id(self) -> str:
        return str(self.record["image_id"])


@dataclass(slots=True)
class SampleCounts:
    """What a drawing saw of the output."""

    shards: int = 0
    """In the output."""
    looked_at: int = 0
    """Shards whose records were read."""
    images: int = 0
    """Records in these."""
    failed: int = 0
    """Failures in these: they have no picture, and are left out."""
    drawn: int = 0


def draw(output: Output, count: int | None, seed: int, counts: SampleCounts) -> Iterator[Drawn]:
    """Yields `count` images, shard by shard; None: all of them, and no more than one shard is held in memory.

    Kinds of images (job, model, size, task, adapters, hardware) take turns, and in each kind shards do. An
    image whose picture another line shares comes once while there are others. Fills in `counts` on the way.
    Raises OutputError where there is no image, or a shard's metadata cannot be read.
    """
    shards = output.shards()
    counts.shards = len(shards)
    drawn = _all(output, shards, counts) if count is None else _some(output, shards, count, seed, counts)
    for one in drawn:
        counts.drawn += 1
        yield one
    if not counts.drawn:
        raise OutputError(
            f"{output.label}: holds no image that could be rendered again: name an output with shards"
        )


def _all(output: Output, shards: Iterable[int], counts: SampleCounts) -> Iterator[Drawn]:
    for shard, stored in output.in_turn(shards):
        yield from (Drawn(shard, record, output.names) for record in _records(stored, counts))


def _some(
    output: Output, shards: Sequence[int], count: int, seed: int, counts: SampleCounts
) -> Iterator[Drawn]:
    kinds: dict[Hashable, list[tuple[int, int, Drawn]]] = {}
    for shard, stored in output.in_turn(_looked_at(shards, max(FEWEST_SHARDS, 4 * count), seed)):
        here: dict[Hashable, list[tuple[int, int, dict[str, Any]]]] = {}
        for place, record in enumerate(_records(stored, counts)):
            here.setdefault(_kind(record), []).append((_random_rank(seed, record["image_id"]), place, record))
        turn = _random_rank(seed, shard)
        for kind, found in here.items():
            known = kinds.setdefault(kind, [])
            # Every shard gives its first image before any gives its second.
            best = heapq.nsmallest(count, found, key=lambda one: one[:2])
            known += [
                (rank, turn, Drawn(shard, record, output.names)) for rank, (_, _, record) in enumerate(best)
            ]
            if len(known) > 4 * count:
                known[:] = heapq.nsmallest(count, known, key=lambda one: one[:2])
    lines = [
        [one for *_, one in sorted(kinds[kind], key=lambda one: one[:2])]
        for kind in sorted(kinds, key=lambda kind: _random_rank(seed, kind))
    ]
    chosen = _in_turn(lines, count)
    return iter(sorted(chosen, key=lambda one: (one.shard, one.record["file_name"])))


def _in_turn(lines: Sequence[Sequence[Drawn]], count: int) -> list[Drawn]:
    """The first `count` of the lines, which take turns; equal images come last."""
    longest = max(map(len, lines), default=0)
    turns = (line[turn] for turn in range(longest) for line in lines if turn < len(line))
    chosen: list[Drawn] = []
    equal: list[Drawn] = []
    seen: set[str] = set()
    for one in turns:
        (equal if one.image_id in seen else chosen).append(one)
        seen.add(one.image_id)
        if len(chosen) == count:
            return chosen
    return [*chosen, *equal[: count - len(chosen)]]


def _looked_at(shards: Sequence[int], most: int, seed: int) -> Iterator[int]:
    """At most so many of the shards, one of each of that many equal stretches."""
    if len(shards) <= most:
        yield from shards
        return
    for stretch in range(most):
        first, end = (len(shards) * at // most for at in (stretch, stretch + 1))
        yield shards[first + _random_rank(seed, "stretch", stretch) % (end - first)]


def _records(stored: StoredShard, counts: SampleCounts) -> Iterator[dict[str, Any]]:
    counts.looked_at += 1
    counts.failed += len(stored.failures())
    for record in stored.records():
        counts.images += 1
        yield record


def _kind(record: Mapping[str, Any]) -> Hashable:
    told = (json.dumps(record.get(name)) for name in _TOLD_APART)
    return (*told, *(record.get(name) is not None for name in PICTURES))


def _random_rank(seed: int, *drawn: object) -> int:
    """A number of 64 bits that follows from the seed and what is drawn."""
    return int.from_bytes(sha256(json.dumps([seed, *drawn]).encode()).digest()[:8])
