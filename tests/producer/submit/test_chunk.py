"""Shards are sent in chunks that end by their number or by their bytes."""

from __future__ import annotations

import pytest

from producer.submit.chunk import MOST_BYTES, MOST_SHARDS, Chunk, in_chunks


def test_without_shards_there_is_one_empty_chunk_which_is_the_last() -> None:
    assert list(in_chunks([])) == [([], True)]


@pytest.mark.parametrize(
    ("shards", "sizes"),
    [
        (1, [1]),
        (MOST_SHARDS, [MOST_SHARDS]),
        (MOST_SHARDS + 1, [MOST_SHARDS, 1]),
        (2 * MOST_SHARDS, [MOST_SHARDS, MOST_SHARDS]),
    ],
)
def test_a_chunk_has_so_many_shards_and_only_the_last_says_that_it_is(shards: int, sizes: list[int]) -> None:
    chunks = list(in_chunks((number, 1) for number in range(shards)))
    assert [number for chunk, _ in chunks for number in chunk] == list(range(shards))
    assert [len(chunk) for chunk, _ in chunks] == sizes
    assert [last for _, last in chunks] == [False] * (len(sizes) - 1) + [True]


def test_a_chunk_is_full_by_its_bytes_and_its_last_shard_may_go_beyond_them() -> None:
    chunk = Chunk[str]()
    chunk.add("almost", MOST_BYTES - 1)
    assert not chunk.full
    chunk.add("large", MOST_BYTES)
    assert chunk.full
    assert chunk.shards == ["almost", "large"]
    half = MOST_BYTES // 2
    assert [chunk for chunk, _ in in_chunks([("a", half), ("b", half), ("c", 1)])] == [["a", "b"], ["c"]]
