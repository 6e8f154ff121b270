"""A recovery is whole or nothing, though others write at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from jobs.errors import JobError, LeaseLost, LedgerUnavailable
from jobs.ledger import redis_keys
from jobs.ledger.job import WorkerState
from jobs.ledger.ledger import Ledger
from jobs.settings import Settings
from producer.reporter import Quiet
from producer.submit.recover import recover_job
from tests.producer.submit.recover.desk import Desk, figures


class CutShort(Ledger):
    """Goes away at the `nth` call that changes something."""

    nth = 1

    def _tick(self) -> None:
        self.nth -= 1
        if self.nth == 0:
            raise LedgerUnavailable("Redis does not answer")

    def stage(self, *arguments: Any) -> None:
        self._tick()
        super().stage(*arguments)

    def recover(self, *arguments: Any) -> None:
        self._tick()
        super().recover(*arguments)


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_recovery_that_is_cut_short_is_no_job_and_the_next_one_is_whole(desk: Desk, nth: int) -> None:
    """Two chunks of 64 shards and a rest, then the end."""
    job_id = desk.submit(520)
    desk.render(failed=[3])
    before = desk.ledger.status(job_id)
    desk.lose()
    ledger = CutShort(desk.url)
    ledger.nth = nth
    with pytest.raises(LedgerUnavailable):
        desk.recover(ledger)
    assert desk.ledger.job_ids() == []
    assert desk.ledger.claim("w1", WorkerState(idle_ms=9000), lease=30) is None
    left_behind = desk.client.keys("imagemill:job:*")
    assert len(left_behind) == int(nth > 1)
    assert all(0 < desk.client.ttl(key) <= 600 for key in left_behind)
    assert desk.recover().left == 516
    assert figures(desk.ledger.status(job_id)) == figures(before)
    assert sorted(desk.entries(job_id)) == list(range(520))


def test_of_two_recoveries_at_once_one_puts_the_job_back(desk: Desk) -> None:
    job_id = desk.submit(9)
    desk.render()
    desk.lose()

    class Second(Ledger):
        """While this one reads, another recovers; it has no lock, as on a file system without any."""

        def recover(self, *arguments: Any) -> None:
            Ledger(desk.url).recover(*arguments)
            before = desk.client.hgetall(redis_keys.job(job_id))
            with pytest.raises(JobError, match="this Redis holds it"):
                super().recover(*arguments)
            assert desk.client.hgetall(redis_keys.job(job_id)) == before

    desk.recover(Second(desk.url))
    assert figures(desk.ledger.status(job_id)) == (9, 5, 4, 0, 0, 0)


def test_shards_that_expired_before_the_end_are_missed(desk: Desk) -> None:
    desk.submit(9)
    desk.lose()

    class Slow(Ledger):
        def stage(self, incarnation: str, shards: Sequence[tuple[int, bytes]]) -> None:
            super().stage(incarnation, shards)
            desk.lose()

    with pytest.raises(JobError, match="have expired: run the same command again"):
        desk.recover(Slow(desk.url))
    assert desk.ledger.job_ids() == []


def test_a_frozen_attempt_of_the_lost_job_can_commit_no_more(desk: Desk) -> None:
    desk.submit(9)
    claim = desk.claim()
    attempt = desk.output.spool_folder(int(claim.shard), claim.attempt)
    (attempt / "images").mkdir(parents=True)
    desk.lose()
    desk.recover()
    assert not attempt.exists()
    assert desk.waiting("cats-1") == [1, 2, 3]
    with pytest.raises(LeaseLost):
        desk.ledger.complete(claim, [0], {})


def test_a_worker_that_still_commits_is_noticed(desk: Desk) -> None:
    desk.submit(9)
    desk.render()
    desk.lose()

    class Commits(Quiet):
        """A worker commits a shard while the manifest is read."""

        def count(self, done: int, total: int | None = None, /) -> None:
            folder = desk.output.shard_folder(1)
            folder.mkdir(exist_ok=True)
            (folder / "metadata.jsonl").touch()

    with pytest.raises(JobError, match="a worker is still writing there: run the same command again"):
        recover_job(desk.file, Settings(), desk.queue, Commits())
    assert desk.ledger.job_ids() == []
