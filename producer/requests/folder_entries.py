"""How many entries a folder of an output gets, of which the Hugging Face hub takes 10,000.

Source: https://huggingface.co/docs/hub/repositories-recommendations
"""

from __future__ import annotations

from typing import Final

from jobs.output.stored_shard import SHARD_LIMIT, LayoutName

HUB_ENTRIES: Final = 10_000
MOST_IN_FOLDER: Final = HUB_ENTRIES - 1
"""Pictures in one shard of `layout: files`: metadata.jsonl is one entry more. A tar's members are none."""
_OTHERS: Final = 6
"""README.md, job.json, failures.jsonl, preview.jpg, .imagemill, and one that may come."""


def entries_remark(layout: LayoutName, there: int, new: int, images: int) -> str:
    """That the output's folder gets more entries than the hub takes, with the remedy; empty when it does not.

    `there`: shards of the output; `new`: those to come, which hold `images`.
    """
    each = 1 if layout == "files" else 2
    entries = each * (there + new) + _OTHERS
    if entries <= HUB_ENTRIES or new == 0:
        return ""
    room, most = (HUB_ENTRIES - _OTHERS) // each - there, MOST_IN_FOLDER if layout == "files" else SHARD_LIMIT
    size = -(-images // room) if room > 0 else most + 1
    remedy = f"use shard_size: {size}" if size <= most else "use several outputs"
    return (
        f"{there + new:,} shards are {entries:,} entries of the output's folder, and the Hugging Face hub "
        f"takes {HUB_ENTRIES:,} a folder: to upload it, {remedy}"
    )
