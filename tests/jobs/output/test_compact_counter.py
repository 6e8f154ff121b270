from __future__ import annotations

import random
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.output.compact_counter import CompactCounter


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 1024, 2048, 3072, 2**64 - 1]), st.integers(1, 2**32 - 1))))
def test_it_counts_what_a_dict_would(pairs: list[tuple[int, int]]) -> None:
    tally, expected = CompactCounter(), dict[int, int]()
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
