from __future__ import annotations

import pytest

from worker.engine.admission_queue import AdmissionQueue, queue_of


def test_the_longest_goes_first_and_equals_as_they_came() -> None:
    waiting = queue_of([("short", 1, 5), ("long", 1, 50), ("middle", 1, 20), ("also long", 1, 50)])
    assert waiting.take(4) == ["long", "also long", "middle", "short"]
    assert len(waiting) == 0


def test_guided_and_unguided_are_one_line_by_length_while_there_is_room_for_both() -> None:
    waiting = queue_of([("c", 1, 30), ("a", 2, 50), ("d", 2, 20), ("b", 1, 40)])
    assert waiting.take(6) == ["a", "b", "c", "d"]


def test_no_more_slots_are_taken_than_are_free_and_a_single_one_goes_to_an_unguided() -> None:
    waiting = queue_of([("guided", 2, 50), ("unguided", 1, 10), ("guided too", 2, 40)])
    assert waiting.take(0) == []
    assert waiting.take(3) == ["guided", "unguided"]
    assert waiting.take(1) == []
    assert waiting.take(2) == ["guided too"]


def test_what_is_free_goes_to_the_longest_of_those_that_it_suits_however_many_slots_they_take() -> None:
    waiting = queue_of([("four", 4, 50), ("one", 1, 10), ("three", 3, 40), ("two", 2, 30)])
    assert waiting.take(3) == ["three"]
    assert waiting.take(3) == ["two", "one"]
    assert waiting.take(3) == []
    assert waiting.upcoming(9) == ["four"]
    assert waiting.take(4) == ["four"]


def test_a_short_one_is_not_passed_over_for_good() -> None:
    waiting: AdmissionQueue[str] = AdmissionQueue()
    waiting.add("short", slots=1, forwards=5, now=0)
    taken: list[str] = []
    for now in range(200):
        waiting.add(f"long {now}", slots=1, forwards=50, now=now)
        taken += waiting.take(1)
        if "short" in taken:
            break
    # 45 forwards of waiting make up for 45 forwards of length.
    assert len(taken) == 46
    assert taken[:2] == ["long 0", "long 1"]


@pytest.mark.parametrize("slots", [2, 3, 4])
def test_a_big_one_is_not_passed_over_for_good_by_small_ones_that_leave_one_at_a_time(slots: int) -> None:
    waiting: AdmissionQueue[str] = AdmissionQueue()
    waiting.add("big", slots=slots, forwards=50, now=0)
    leaves = [3, 5, 8, 10]  # when each of four slots is free again
    for now in range(500):
        waiting.add("small", slots=1, forwards=10, now=now)
        leaves = [at for at in leaves if at > now]
        for item in waiting.take(4 - len(leaves)):
            if item == "big":
                assert 100 < now < 200
                return
            leaves.append(now + 10)
    raise AssertionError("it still waits")


def test_what_comes_next_can_be_seen_without_taking_it() -> None:
    waiting = queue_of(
        [(f"{slots} {forwards}", slots, forwards) for slots in (1, 2) for forwards in range(1, 7)]
    )
    assert waiting.upcoming(2) == ["1 6", "2 6"]
    assert sorted(waiting.upcoming(50)) == sorted(waiting.take(50))
    assert waiting.upcoming(2) == []


def test_what_is_removed_is_not_taken_and_the_rest_keeps_its_order() -> None:
    waiting = queue_of([(forwards, 1 + forwards % 2, forwards) for forwards in range(40)])
    removed = waiting.remove(lambda item: item % 3 == 0)
    assert sorted(removed) == list(range(0, 40, 3))
    assert waiting.take(100) == [item for item in range(39, -1, -1) if item % 3]
