"""What a job's shards are called, and whether they find a place: no folder gets more than 10,000 entries."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from jobs.output.output import Output
from jobs.output.shard_names import (
    FOLDER_LIMIT,
    HUB_ENTRIES,
    OTHER_ENTRIES,
    SHARD_LIMIT,
    UNBOUNDED,
    ShardNames,
)
from jobs.output.stored_shard import LayoutName, entries_of_a_shard
from jobs.wording import counted
from producer.manifest.manifest import Manifest

_ROOM: Final = 2
"""An output begins with names for twice as many shards as its first job has: later ones add to it."""


@dataclass(frozen=True, slots=True)
class Room:
    """Where a job's shards go."""

    names: ShardNames
    """What the output's shards are called once the job has begun."""
    remark: str = ""
    """What is to be said of their number; empty when nothing is."""
    refusal: str = ""
    """Why they find no place, with the remedy; empty when they do."""


def names_to_begin(layout: LayoutName, shards: int) -> ShardNames:
    """What shards are called in an output that begins with so many."""
    return ShardNames.for_shards(shards, entries_of_a_shard(layout), room=_ROOM)


def room_for(manifest: Manifest, output: Output, there: Collection[int], new: int, images: int) -> Room:
    """Where the shards go that a job of the manifest adds.

    `there`: shards of the output; `new`: those to come, which hold `images`. Raises OutputError where the
    output's names cannot be told.
    """
    smaller = _smaller(manifest, new, images)
    end = output.next_shard() + new
    if not there:
        names = names_to_begin(manifest.layout, end)
        if end > names.most(1):
            return Room(names, smaller, _refusal(manifest, output, end))
        nested = f"{new:,} shards, a thousand in a folder: {names.name(0)}, {names.name(1)} …"
        return Room(names, "; ".join(one for one in (smaller, nested if names.nested else "") if one))
    names, entries = output.names, entries_of_a_shard(manifest.layout) * new
    if names == UNBOUNDED:
        said = _begun_before(manifest, len(there), new, images)
        return Room(names, "; ".join(one for one in (smaller, said) if one))
    if new and names.nested:
        full = end > names.most(1)
    else:
        full = new > 0 and entries + sum(1 for _ in output.store.list()) + OTHER_ENTRIES // 2 > HUB_ENTRIES
    return Room(names, smaller, _refusal(manifest, output, end) if full else "")


def _smaller(manifest: Manifest, new: int, images: int) -> str:
    """That shards are smaller than `shard_size`, or what auto chose."""
    if manifest.shard_size == "auto":
        each = f", of {-(-images // new):,} pictures on average" if new else ""
        return f"shard_size = auto: {counted(new, 'shard')}{each}"
    if manifest.shard_size == manifest.pictures_a_shard or images <= manifest.pictures_a_shard:
        return ""
    return (
        f"shard_size = {manifest.shard_size}: folders get {FOLDER_LIMIT:,} pictures, because the Hugging "
        f"Face hub takes {HUB_ENTRIES:,} entries a folder and metadata.jsonl is one"
    )


def _refusal(manifest: Manifest, output: Output, end: int) -> str:
    names = ""
    if output.shards():
        how = "in folders of a thousand" if output.names.nested else "all in one folder"
        names = f" was begun with its shards {how}, and"
    larger = ", use a larger shard_size (auto chooses one)"
    if manifest.shard_size == "auto" or manifest.pictures_a_shard * 2 > _most(manifest):
        larger = ""
    return (
        f"output {output.label}{names} has no place for {end:,} shards: a folder gets {HUB_ENTRIES:,} "
        f"entries at most: name another output{larger}"
    )


def _begun_before(manifest: Manifest, there: int, new: int, images: int) -> str:
    """That a folder gets more entries than the hub takes, in an output that an earlier version began."""
    each = entries_of_a_shard(manifest.layout)
    entries = each * (there + new) + OTHER_ENTRIES // 2
    if entries <= HUB_ENTRIES or new == 0:
        return ""
    return (
        f"{there + new:,} shards are {entries:,} entries of the output's folder, which an earlier version "
        f"began, and the Hugging Face hub takes {HUB_ENTRIES:,} a folder: `imagemill export` nests them"
    )


def _most(manifest: Manifest) -> int:
    return FOLDER_LIMIT if manifest.layout == "files" else SHARD_LIMIT
