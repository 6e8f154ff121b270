"""A submission that is interrupted, or meets another, gives each image once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobs.errors import JobError, LedgerUnavailable
from jobs.ledger import redis_keys
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import decode_shard, encode_shard
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.requests.prepared import prepare
from producer.submit.submit import Submitted, packed_for, store, submit_manifest
from tests.producer.submit.desk import Desk
from tests.producer.submit.interrupted import Interrupted
from tests.reported import Reported
from tests.waiting import LONGEST


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_an_interrupted_submission_is_resumed_and_gives_every_image_once(desk: Desk, nth: int) -> None:
    """Interrupted before the first chunk, between chunks, and before the last, which seals."""
    ledger = Interrupted(desk.url)
    ledger.nth = nth
    lines = [f"picture {n % 290}" for n in range(280)] + [{"prompt": "twice", "seeds": [3, 3, 4]}]
    with pytest.raises(LedgerUnavailable):
        desk.submit(lines, ledger=ledger)
    assert desk.ledger.status("cats-1").state == "open"
    done = desk.submit(lines)
    assert (done.job_id, done.attached, done.images, done.duplicates) == ("cats-1", True, 282, 1)
    stored = desk.stored("cats-1")
    assert [stored[index] for index in range(282)] == desk.asked()
    assert desk.shard_numbers("cats-1") == list(range(141))
    assert desk.ledger.status("cats-1").state == "sealed"


def test_one_that_is_overtaken_by_another_submit_of_the_same_manifest_joins_it(desk: Desk) -> None:
    class Slow(Ledger):
        """While this one is between two adds, another submits the manifest whole."""

        adds = 0

        def add(self, *arguments: Any, **named: Any) -> None:
            self.adds += 1
            if self.adds == 2:
                assert desk.submit(299).attached
            super().add(*arguments, **named)

    done = desk.submit(299, ledger=Slow(desk.url))
    assert (done.job_id, done.images) == ("cats-1", 299)
    stored = desk.stored("cats-1")
    assert [stored[index] for index in range(299)] == desk.asked()


def test_another_manifest_for_a_taken_output_is_refused_and_the_first_job_unharmed(desk: Desk) -> None:
    desk.submit(3)
    before = desk.stored("cats-1")
    with pytest.raises(JobError, match="imagemill cancel cats-1"):
        desk.submit(4)
    assert desk.stored("cats-1") == before
    assert desk.ledger.job_ids() == ["cats-1"]


def test_an_interrupted_submission_of_files_goes_on_only_with_the_same_files(desk: Desk) -> None:
    file = desk.folder / "p.txt"
    text = "".join(f"row {n}\n" for n in range(290))
    file.write_text(text)
    with pytest.raises(LedgerUnavailable):
        desk.submit(1, prompts_from="p.txt", ledger=Interrupted(desk.url))
    file.write_text(text.replace("row 7\n", "row seven\n"))
    with pytest.raises(JobError) as caught:
        desk.submit(1, prompts_from="p.txt")
    assert str(caught.value) == (
        f"{file}: not as it was when cats-1 was begun: put it back to resume cats-1, or "
        "`imagemill cancel cats-1` and submit again"
    )
    # Another manifest is another message.
    with pytest.raises(JobError, match="cats-1 is writing there, from another manifest"):
        desk.submit(2, prompts_from="p.txt")
    file.write_text(text)
    done = desk.submit(1, prompts_from="p.txt")
    assert (done.attached, done.images) == (True, 291)
    stored = desk.stored("cats-1")
    assert [stored[index] for index in range(291)] == desk.asked()


def test_a_job_goes_on_though_workers_have_committed_some_of_its_shards(desk: Desk) -> None:
    """Their pictures are in the output by then, but no reason to leave lines out."""
    with pytest.raises(LedgerUnavailable):
        desk.submit(299, ledger=Interrupted(desk.url))
    for _ in range(5):
        desk.render()
    done = desk.submit(299)
    assert (done.attached, done.images, done.held) == (True, 299, 0)
    stored = sorted(desk.stored(done.job_id).items())
    assert [entry.request.prompt for _, entry in stored] == [f"picture {n}" for n in range(299)]


def test_a_job_whose_output_was_changed_meanwhile_is_not_resumed(desk: Desk) -> None:
    desk.write(299)
    desk.put_in_output(0, desk.asked()[:3])
    with pytest.raises(LedgerUnavailable):
        desk.submit(299, ledger=Interrupted(desk.url))
    (desk.output.shard_folder(0) / "1.png").unlink()
    with pytest.raises(JobError, match=r"changed since cats-1 was begun.*`imagemill cancel cats-1`"):
        desk.submit(299)


def test_what_another_job_rendered_while_this_one_was_packed_is_not_rendered_again(desk: Desk) -> None:
    prepared = prepare(desk.write(5), Settings())
    with packed_for(prepared, desk.ledger) as before:
        desk.submit(5)
        with packed_for(prepared, desk.ledger) as during:
            for _ in range(3):
                desk.render()
            desk.finish()
            assert store(during, desk.queue).held == 5
        desk.finish()
        done = store(before, desk.queue)
    assert (done.job_id, done.images, done.held) == ("cats-3", 0, 5)


def test_an_attempt_that_was_frozen_before_a_wipe_can_commit_no_more_once_a_job_begins_there(
    desk: Desk,
) -> None:
    desk.submit(4)
    frozen = desk.output.spool_folder(0, desk.claim().attempt)
    frozen.mkdir(parents=True)
    desk.client.flushall()
    desk.submit(4)
    assert not frozen.exists()


def test_a_redis_that_is_full_in_the_middle_is_waited_for_and_said_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr("producer.submit.chunk.MOST_SHARDS", 2)
    monkeypatch.setattr(
        "producer.submit.submit.failpoint", lambda name: desk.client.config_set("maxmemory", 1)
    )
    prepared = prepare(desk.write(10), Settings())
    reported = Reported()
    ends: list[Submitted] = []
    thread = threading.Thread(target=lambda: ends.append(submit_manifest(prepared, desk.queue, reported)))
    thread.start()
    wait_until(lambda: reported.lines, "it says what it waits for")
    assert "Redis is full" in reported.lines[0]
    assert (desk.ledger.status("cats-1").state, desk.ledger.status("cats-1").total) == ("open", 4)
    monkeypatch.setattr("producer.submit.submit.failpoint", lambda name: None)
    desk.client.config_set("maxmemory", 0)
    thread.join(LONGEST)
    assert (ends[0].job_id, ends[0].images) == ("cats-1", 10)
    assert len(reported.lines) <= 2, "once for each thing that waits"
    assert desk.ledger.status("cats-1").state == "sealed"


def test_a_submission_that_an_earlier_version_began_is_refused_with_the_remedy(desk: Desk) -> None:
    with pytest.raises(LedgerUnavailable):
        desk.submit(299, ledger=Interrupted(desk.url))
    key = redis_keys.job("cats-1", "shards")
    base = ImageRequest.from_mapping(desk.ledger.spec("cats-1").base)
    for number, blob in desk.client.hgetall(key).items():
        shard = decode_shard(blob, base, "cats")
        desk.client.hset(key, number, encode_shard(replace(shard, in_order=False), base))
    with pytest.raises(JobError, match=r"cats-1: an earlier version.*imagemill cancel cats-1"):
        desk.submit(299)
