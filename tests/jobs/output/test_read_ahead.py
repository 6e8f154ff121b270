"""Tars of a bucket are read ahead: in order, a few at a time, no request more, and errors in their turn."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from jobs.errors import OutputError
from jobs.output.contents import contents
from jobs.output.output import Output
from jobs.output.read_ahead import AT_A_TIME
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind

Rendered = Callable[..., Output]
SHARDS = 24
"""More than are read at a time."""


@pytest.fixture
def output(rendered: Rendered, bucket: str) -> Output:
    """Tars of the same four pictures under many numbers."""
    output = rendered(4, layout="webdataset", place=f"s3://{bucket}/foxes")
    for number in range(1, SHARDS):
        output.store.copy("00000.tar", f"{number:05d}.tar")
    return output


def test_records_and_failures_take_a_request_a_shard(output: Output, object_store: BreakableStore) -> None:
    assert output.names  # which the output keeps
    object_store.forget()
    assert len(output.held_image_ids()) == 4
    assert object_store.traffic(Kind.GET).requests == SHARDS
    for _, stored in output.in_turn():
        assert len([*stored.records()]) == 4
        assert stored.failures() == []
    assert object_store.traffic(Kind.GET).requests == 2 * SHARDS
    assert contents(output).total == 4 * SHARDS
    assert [*contents(output).images] == [*range(SHARDS)]


def test_the_size_of_a_shard_that_was_read_takes_a_look_at_its_parquet_alone(
    output: Output, object_store: BreakableStore
) -> None:
    tar, parquet = (output.store.size(f"00000.{ending}") for ending in ("tar", "parquet"))
    object_store.forget()
    assert [stored.size() for _, stored in output.in_turn([0, 1])] == [tar + parquet, tar]
    assert object_store.traffic(Kind.HEAD).requests == 2


def test_those_that_lack_their_parquet_are_told_by_a_listing(
    output: Output, object_store: BreakableStore
) -> None:
    assert output.names
    object_store.forget()
    assert output.incomplete() == [*range(1, SHARDS)]
    assert object_store.traffic().requests == object_store.traffic(Kind.LIST).requests == 1


def test_answers_are_waited_for_together(output: Output, object_store: BreakableStore) -> None:
    object_store.order(Fault(Action.DELAY, frozenset({Kind.GET}), seconds=1.0))
    begin = time.monotonic()
    assert output.held_lines().pictures == 4
    assert time.monotonic() - begin < SHARDS / 2


def test_no_more_is_read_than_a_few_shards_ahead(output: Output, object_store: BreakableStore) -> None:
    object_store.forget()
    for number, _ in output.in_turn():
        if number == 3:
            break
    assert object_store.traffic(Kind.GET).requests <= 4 + AT_A_TIME + 1


def test_a_shard_that_cannot_be_read_is_told_in_its_turn(output: Output) -> None:
    output.store.replace("00007.tar", b"x" * 1000)
    seen = []
    with pytest.raises(OutputError, match=r"00007\.tar: bytes were changed"):
        for number, stored in output.in_turn():
            seen += [(number, record["file_name"]) for record in stored.held_records()]
    assert len(seen) == 4 * 7
