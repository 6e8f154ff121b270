"""Images that kill their workers are found: the ledger knows them, they are rendered alone, and failed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from jobs.ledger import redis_keys
from tests.worker.shard.bench import (
    Bench,
    lines,
)


def worker_dies(bench: Bench, *positions: int, alone: int | None = None) -> None:
    """Another worker has these in its slots, or one alone, and its lease runs out."""
    claim = bench.claim("w2")
    bench.ledger.renew({claim: [100 + position for position in positions]}, 30)
    if alone is not None:
        bench.ledger.begin_alone(claim, 100 + alone)
    bench.client.zadd(redis_keys.LEASES, {f"{bench.job_id}/0": 1})
    bench.wait_until(lambda: bench.status().shards_leased == 0, "the lease is reaped")


def test_what_was_in_the_slots_when_workers_died_is_rendered_first_and_one_by_one(bench: Bench) -> None:
    bench.submit(lines(8))
    for _ in range(3):
        worker_dies(bench, 2, 5)
    forwards: list[list[int]] = []
    paint = bench.painter.wait_for_leave
    bench.painter.wait_for_leave = lambda asked, stop: (  # type: ignore[method-assign]
        forwards.append([one.request.seed for one in asked]),
        paint(asked, stop),
    )[1]
    report = bench.run()
    assert (report.ended, report.rendered) == ("committed", 8)
    assert sorted(forwards[:2]) == [[3], [6]]
    assert sorted(map(len, forwards[2:])) == [2, 4]
    assert bench.status().outcome == "complete"


def test_of_a_shard_that_is_suspect_as_a_whole_every_image_is_rendered_by_itself(bench: Bench) -> None:
    bench.submit(lines(5))
    forwards: list[int] = []
    paint = bench.painter.wait_for_leave
    bench.painter.wait_for_leave = lambda asked, stop: (  # type: ignore[method-assign]
        forwards.append(len(asked)),
        paint(asked, stop),
    )[1]
    report = bench.run(dataclasses.replace(bench.claim(), all_suspect=True))
    assert (report.ended, report.rendered, forwards) == ("committed", 5, [1] * 5)


def test_the_ledger_knows_which_image_has_the_slots_alone_while_it_does(bench: Bench) -> None:
    bench.submit(lines(4))
    for _ in range(3):
        worker_dies(bench, 1)
    known: list[object] = []
    paint = bench.painter.wait_for_leave

    def look(asked: Sequence[Any], stop: Callable[[], bool]) -> Sequence[Any]:
        lease = json.loads(bench.client.hget(redis_keys.job(bench.job_id, "leased"), "0"))
        known.append((len(asked), lease.get("alone")))
        return paint(asked, stop)

    bench.painter.wait_for_leave = look  # type: ignore[method-assign]
    assert bench.run().ended == "committed"
    assert known == [(1, 101), (3, 101)]


def test_an_image_that_two_workers_died_of_alone_fails_and_its_neighbours_do_not(bench: Bench) -> None:
    bench.submit(lines(4))
    worker_dies(bench, 1, alone=1)
    worker_dies(bench, 1, alone=1)
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 3, 1)
    assert [request.seed for request in bench.painter.seen] == [1, 3, 4]
    (failure,) = bench.output.shard_failures(0)
    assert (failure.position, failure.image_id) == (1, bench.entries[1].request.image_id)
    assert "the worker died each time" in failure.reason
    assert (bench.status().outcome, bench.status().left) == ("failures", 0)


def test_the_renewals_report_what_is_in_the_slots(bench: Bench) -> None:
    bench.submit(lines(6))
    bench.painter.hold_after(0)
    running = bench.begin()

    def in_flight() -> list[int]:
        lease = bench.client.hget(redis_keys.job(bench.job_id, "leased"), "0")
        return sorted(json.loads(lease).get("rows", [])) if lease else []

    bench.wait_until(lambda: in_flight() == [100, 101, 102, 103], "four slots are reported")
    bench.painter.allowed.release(100)
    running.report()
