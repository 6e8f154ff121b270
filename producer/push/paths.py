"""Where a shard lies in a repository, and what of a repository is a shard.

    00003.tar  00003.parquet                as in the output: a copy of the repository is one
    149/421.tar  149/421.parquet            the same of an output whose shards are nested by thousand
    004/04000.tar  004/04000.parquet        from shard 4000 on where the output does not nest them
    data/00003-5f3a9c1e0b7d2468.parquet     pictures in parquet; data/004/04000-….parquet

So no folder has 10,000 entries, as the hub asks. A shard's path follows from its number and its name alone,
so a top-up moves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, Literal, NamedTuple

from jobs.errors import OutputError

FormName = Literal["webdataset", "parquet"]
NESTED_FROM: Final = 4_000
_PER_FOLDER: Final = 1_000
MOST_SHARDS: Final = 1_990_000
"""The top folder holds two files for each of the first 4,000 shards, and a folder for each 1,000 others."""

_TAR: Final = re.compile(r"(\d{3,}/)?(\d{3,})\.(tar|parquet)")
_PARQUET: Final = re.compile(r"data/(?:\d{3,}/)?(\d{5,})-[0-9a-f]{16}\.parquet")
_FLAT_DIGITS: Final = 5
_DATA: Final = "data/"


class Place(NamedTuple):
    """What a path of a repository is of."""

    shard: int
    form: FormName
    is_table: bool
    """The parquet next to a tar, which holds nothing that the tar does not."""


def tar_path(shard: int, name: str) -> str:
    """Where a tar lies, or the parquet next to it, that has this name in the output."""
    return name if "/" in name else f"{_folder(shard)}{name}"


def parquet_path(shard: int, fingerprint: str) -> str:
    """`data/00003-5f3a9c1e0b7d2468.parquet`, by 16 hex digits that follow from what is in it."""
    return f"{_DATA}{_folder(shard)}{shard:05d}-{fingerprint}.parquet"


def place_of(path: str) -> Place | None:
    """What a path is of; None for what is no shard's."""
    if tar := _TAR.fullmatch(path):
        folder, digits, ending = tar.groups(default="")
        if len(digits) < _FLAT_DIGITS:
            if not folder:
                return None
            digits = folder[:-1] + digits
        return Place(int(digits), "webdataset", ending == "parquet")
    if parquet := _PARQUET.fullmatch(path):
        return Place(int(parquet[1]), "parquet", is_table=False)
    return None


def is_nested(path: str) -> bool:
    """Whether a shard's file lies in a folder of a thousand shards."""
    return "/" in path.removeprefix(_DATA)


def patterns(form: FormName, paths: Collection[str]) -> list[str]:
    """The patterns by which a card names the shards; each finds some. `paths`: of all shards, or one in the
    top folder and one in a nested one, where there are such."""
    before, files = ("", "[0-9]*.tar") if form == "webdataset" else (_DATA, "*.parquet")
    nested = {is_nested(path) for path in paths}
    return [f"{before}{'[0-9]*/' if one else ''}{files}" for one in sorted(nested)]


def _folder(shard: int) -> str:
    if shard >= MOST_SHARDS:
        raise OutputError(
            f"shard {shard:,}: a repository takes {MOST_SHARDS:,} at most: push a copy with larger ones "
            "(`imagemill export OUT NEW --shard-size N`)"
        )
    return "" if shard < NESTED_FROM else f"{shard // _PER_FOLDER:03d}/"
