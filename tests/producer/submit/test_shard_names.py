"""A submission fixes what its output's shards are called before any worker can commit one."""

from __future__ import annotations

import pytest

from jobs.errors import LedgerUnavailable, OutputError
from jobs.ledger.ledger import Ledger
from jobs.output.output import Output
from jobs.output.shard_names import FLAT, UNBOUNDED, ShardNames
from producer.submit.retry import retry_job
from tests.producer.submit.desk import Desk


def names(desk: Desk) -> ShardNames:
    """What a worker finds."""
    return Output(desk.output.path).names


class Breaking(Ledger):
    """Is gone when the first shards are to be stored."""

    def add(self, *arguments: object, **named: object) -> None:
        raise LedgerUnavailable("gone")


def test_few_shards_are_in_one_folder_and_many_in_folders_of_a_thousand(desk: Desk) -> None:
    desk.submit(3)
    assert names(desk) == FLAT
    desk.ledger.control("cats-1", "cancel")
    desk.finish()
    done = desk.submit(4_951, shard_size=1)
    assert (names(desk), done.images) == (ShardNames(6), 4_951)
    assert "4,951 shards, a thousand in a folder: 000/000, 000/001 …" in done.remark


def test_the_form_is_there_before_a_shard_is_and_stays_when_the_submission_is_resumed(desk: Desk) -> None:
    with pytest.raises(LedgerUnavailable):
        desk.submit(4_951, shard_size=1, ledger=Breaking(desk.url))
    assert (names(desk), desk.shard_numbers("cats-1")) == (ShardNames(6), [])
    assert desk.submit(4_951, shard_size=1).attached
    assert names(desk) == ShardNames(6)


def test_a_job_that_adds_to_an_output_keeps_its_form(desk: Desk) -> None:
    desk.submit(2)
    desk.render()
    desk.finish()
    desk.submit(20)
    assert names(desk) == FLAT


def test_a_job_that_does_not_fit_is_refused_before_anything_is_stored(desk: Desk) -> None:
    desk.submit(2)
    desk.render()
    desk.finish()
    with pytest.raises(
        OutputError, match="begun with its shards all in one folder, and has no place for 10,001"
    ):
        desk.submit(10_002, shard_size=1)
    assert (desk.ledger.job_ids(), names(desk)) == (["cats-1"], FLAT)


def test_an_output_of_an_earlier_version_takes_any_number(desk: Desk) -> None:
    desk.submit(2)
    desk.render()
    desk.finish()
    (desk.output.private / "shards.json").unlink()
    desk.output = Output(desk.output.path)
    done = desk.submit(10_002, shard_size=1)
    assert (done.images, names(desk)) == (10_000, UNBOUNDED)
    assert "10,001 shards are 10,051 entries" in done.remark


def test_what_is_sent_back_to_an_output_that_is_gone_has_a_form_again(desk: Desk) -> None:
    desk.submit(2)
    desk.render(failed=[0])
    desk.finish()
    (desk.output.private / "shards.json").unlink()
    retry_job("cats-1", desk.queue)
    assert (desk.output.private / "shards.json").exists()


def test_the_same_manifest_with_auto_is_the_same_job_when_pictures_are_there_meanwhile(desk: Desk) -> None:
    first = desk.submit(5, shard_size="auto")
    desk.render()
    again = desk.submit(5, shard_size="auto")
    assert (again.job_id, again.attached) == (first.job_id, True)
    assert desk.ledger.spec("cats-1").shard_bytes == 300_000_000
