from __future__ import annotations

import random
import resource
import signal
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import OutputError
from jobs.output.compact_counter import IN_MEMORY, CompactCounter


@pytest.mark.parametrize("in_memory", [IN_MEMORY, 2])
@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from([0, 1, 1024, 2048, 3072, 2**64 - 1]), st.integers(1, 2**32 - 1)),
        max_size=20,
    )
)
def test_it_counts_what_a_dict_would(in_memory: int, pairs: list[tuple[int, int]]) -> None:
    tally, expected = CompactCounter(in_memory), dict[int, int]()
    for key, number in pairs:
        assert tally.get(key) == expected.get(key, 0)
        if number % 2:
            tally.set(key, number)
            expected[key] = number
        else:
            assert tally.mark(key, number) == expected.get(key, 0)
            expected[key] = expected.get(key, 0) | number
    assert all(tally.get(key) == number for key, number in expected.items())


def test_a_key_that_stands_across_two_others_is_not_found_there() -> None:
    # In a bucket: seven bytes of the key, four of its number, then the next key's.
    bucket, tally = 7, CompactCounter()
    first, second = (int.from_bytes(one, "little") << 15 | bucket for one in (b"1234567", b"ABCDEFG"))
    tally.set(first, int.from_bytes(b"wxyz", "little"))
    tally.set(second, 5)
    across = int.from_bytes(b"xyzABCD", "little") << 15 | bucket
    assert tally.get(across) == 0
    assert tally.mark(across, 2) == 0
    assert tally.mark(across, 4) == 2
    assert tally.get(across) == 6
    assert tally.get(first) == int.from_bytes(b"wxyz", "little")
    assert tally.get(second) == 5


def test_it_grows_and_forgets_nothing() -> None:
    draw = random.Random(3)
    expected = {draw.getrandbits(64): draw.randrange(1, 2**32) for _ in range(20_000)}
    tally = CompactCounter()
    for key, number in expected.items():
        tally.set(key, number)
    assert all(tally.get(key) == number for key, number in expected.items())
    assert sorted(tally) == sorted(expected)
    assert not any(tally.get(draw.getrandbits(64)) for _ in range(20_000))


def test_counters_without_keys_take_no_memory_and_know_no_key() -> None:
    tracemalloc.start()
    try:
        counters = [CompactCounter() for _ in range(100)]
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert [*counters[0]] == []
    assert counters[0].get(7) == 0
    counters[0].set(7, 3)
    assert (counters[1].mark(9, 1), [*counters[0]], [*counters[1]]) == (0, [7], [9])


def test_keys_that_went_to_the_file_are_found_and_changed_there() -> None:
    draw = random.Random(5)
    # Twelve runs of the file: the first eight were joined.
    keys = [draw.getrandbits(64) for _ in range(12_345)]
    tally, expected = CompactCounter(1_000), dict[int, int]()
    for key in keys:
        assert tally.mark(key, 1) == 0
        expected[key] = 1
    for key in draw.sample(keys, 2_000):
        assert tally.mark(key, 6) == 1
        expected[key] = 7
    for key in draw.sample(keys, 2_000):
        number = draw.randrange(1, 2**32)
        tally.set(key, number)
        expected[key] = number
    assert {key: tally.get(key) for key in keys} == expected
    assert sorted(tally) == sorted(keys)
    assert not any(tally.get(draw.getrandbits(64)) for _ in range(2_000))


def test_memory_is_the_same_for_any_number_of_keys() -> None:
    draw, most = random.Random(6), list[int]()
    for count in (5_000, 30_000):
        tracemalloc.start()
        try:
            tally = CompactCounter(4_000)
            for _ in range(count):
                tally.mark(draw.getrandbits(64), 1)
            most.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert most[1] < most[0] + (4 << 20)


def test_the_file_has_no_name_and_is_closed_with_the_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = sorted(Path("/proc/self/fd").iterdir())
    tally = CompactCounter(10)
    for key in range(100):
        tally.mark(key, 1)
    assert [*folder.iterdir()] == []
    assert sorted(tally) == [*range(100)]
    del tally
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_a_temporary_folder_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    tally = CompactCounter(100)
    try:
        with pytest.raises(OutputError) as raised:
            for key in range(1_000):
                tally.mark(key, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert str(raised.value) == (
        f"{tmp_path}: cannot hold what lines are compared with (File too large): free some space there, or "
        "set TMPDIR to another folder"
    )
