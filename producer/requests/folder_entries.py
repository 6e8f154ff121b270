"""How many entries a folder of an output gets, of which the Hugging Face hub takes 10,000."""

from __future__ import annotations

from typing import Final

from jobs.output.stored_shard import FOLDER_LIMIT, HUB_ENTRIES, SHARD_LIMIT
from producer.manifest.manifest import Manifest

_OTHERS: Final = 6
"""README.md, job.json, failures.jsonl, preview.jpg, .imagemill, and one that may come."""


def entries_remark(manifest: Manifest, there: int, new: int, images: int) -> str:
    """That shards are smaller than `shard_size` so that the hub takes them, and that the output's folder gets
    more entries than the hub takes, with the remedy; empty when neither is so.

    `there`: shards of the output; `new`: those to come, which hold `images`.
    """
    cut = manifest.shard_size != manifest.pictures_a_shard and images > manifest.pictures_a_shard
    smaller = (
        f"shard_size = {manifest.shard_size}: folders get {FOLDER_LIMIT:,} pictures, because the Hugging "
        f"Face hub takes {HUB_ENTRIES:,} entries a folder and metadata.jsonl is one"
    )
    return "; ".join(one for one in (smaller if cut else "", _too_many(manifest, there, new, images)) if one)


def _too_many(manifest: Manifest, there: int, new: int, images: int) -> str:
    each = 1 if manifest.layout == "files" else 2
    entries = each * (there + new) + _OTHERS
    if entries <= HUB_ENTRIES or new == 0:
        return ""
    room, most = (HUB_ENTRIES - _OTHERS) // each - there, FOLDER_LIMIT if each == 1 else SHARD_LIMIT
    size = -(-images // room) if room > 0 else most + 1
    remedy = f"use shard_size: {size}" if size <= most else "use several outputs"
    return (
        f"{there + new:,} shards are {entries:,} entries of the output's folder, and the Hugging Face hub "
        f"takes {HUB_ENTRIES:,} a folder: to upload it, {remedy}"
    )
