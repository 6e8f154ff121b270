"""How many commits a push takes, by its files and their bytes, and how many entries a folder gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import OutputError
from producer.push.form import Piece
from producer.push.paths import MOST_SHARDS, parquet_path, patterns, place_of, tar_path
from producer.push.plan import Plan, compared
from producer.push.repository import RemoteFile
from producer.reporter import QUIET

PICTURE = 1_500_000
"""Bytes of a picture of 1024x1024."""


def _tar(shard: int) -> str:
    return tar_path(shard, f"{shard:05d}.tar")


def _table(shard: int) -> str:
    return tar_path(shard, f"{shard:05d}.parquet")


class _Listing:
    """An output of so many pictures in tars, as far as a plan looks at it."""

    def __init__(self, images: int, shard_size: int) -> None:
        self.images, self.shard_size = images, shard_size

    def pieces(self) -> Iterator[Piece]:
        for shard in range(-(-self.images // self.shard_size)):
            yield Piece(_tar(shard), shard, self.shard_size * PICTURE)
            yield Piece(_table(shard), shard, self.shard_size * 200)

    def is_there(self, piece: Piece, held: RemoteFile) -> bool:
        return held.size == piece.size

    def made(self, piece: Piece, folder: Path) -> Path:
        raise AssertionError("a plan makes nothing")


def _plan(images: int, shard_size: int, there: dict[str, RemoteFile] | None = None) -> Plan:
    held = {} if there is None else there
    plan = compared(_Listing(images, shard_size), "webdataset", held, QUIET, overwrite=False)
    plan.small = {"README.md": b"card"}
    return plan


@pytest.mark.parametrize("shard_size", [10, 100, 1_000, 10_000])
def test_a_million_images_take_100_commits_at_most_and_10000_entries_a_folder(shard_size: int) -> None:
    plan = _plan(1_000_000, shard_size)

    assert 0 < plan.commits <= 100
    assert plan.bytes > 1_000_000 * PICTURE
    folders = {folder for piece in plan.pieces for folder in _folders(piece.path)}
    entries = Counter(folder.rpartition("/")[0] for folder in folders)
    entries.update(piece.path.rpartition("/")[0] for piece in plan.pieces)
    assert max(entries.values()) < 10_000


def test_ten_million_images_do_too() -> None:
    assert _plan(10_000_000, 1_000).commits <= 100


def test_a_small_output_takes_one_commit() -> None:
    assert _plan(1_000, 100).commits == 1


def test_a_top_up_takes_the_commits_of_what_is_new() -> None:
    there = {piece.path: RemoteFile(piece.size, "", "") for piece in _Listing(1_000_000, 1_000).pieces()}
    plan = _plan(1_010_000, 1_000, there)
    assert (len(plan.pieces), plan.there, plan.commits) == (20, 2_000, 2)


@pytest.mark.parametrize("shard", [0, 3_999, 4_000, 99_999, 1_000_000, MOST_SHARDS - 1])
def test_a_path_tells_its_shard(shard: int) -> None:
    for path, form, is_table in (
        (_tar(shard), "webdataset", False),
        (_table(shard), "webdataset", True),
        (parquet_path(shard, "0123456789abcdef"), "parquet", False),
    ):
        place = place_of(path)
        assert place is not None
        assert (place.shard, place.form, place.is_table) == (shard, form, is_table)


@pytest.mark.parametrize("path", ["README.md", "0.tar", "../00001.tar", "data/train.parquet", "a/00001.tar"])
def test_what_imagemill_would_not_call_so_is_no_shard(path: str) -> None:
    assert place_of(path) is None


def test_the_patterns_of_a_card_find_every_shard(tmp_path: Path) -> None:
    shards = [0, 3_999, 4_000, 123_456]
    for shard in shards:
        for path in (_tar(shard), _table(shard), parquet_path(shard, "0" * 16)):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
    tars = [
        file.name for one in patterns("webdataset", list(map(_tar, shards))) for file in tmp_path.glob(one)
    ]
    assert sorted(tars) == ["00000.tar", "03999.tar", "04000.tar", "123456.tar"]
    parquets = [parquet_path(shard, "0" * 16) for shard in shards]
    assert sum(len(list(tmp_path.glob(one))) for one in patterns("parquet", parquets)) == len(shards)


def test_an_output_that_nests_its_shards_keeps_its_paths() -> None:
    paths = [tar_path(149_421, "149/421.tar"), tar_path(3, "000/003.parquet")]
    assert paths == ["149/421.tar", "000/003.parquet"]
    assert [place.shard for path in paths if (place := place_of(path))] == [149_421, 3]
    assert patterns("webdataset", paths) == ["[0-9]*/[0-9]*.tar"]


def test_more_shards_than_a_repository_takes_are_refused() -> None:
    with pytest.raises(OutputError, match=r"shard 1,990,000: .*--shard-size"):
        _tar(MOST_SHARDS)


def _folders(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
