from __future__ import annotations

import pytest
import redis

from jobs.errors import JobError, LedgerError
from jobs.ledger import redis_keys
from jobs.ledger.job import Addition, NewShard, Submission
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import EmbeddedRedis
from tests.jobs.ledger.claims import MakeSpec, Submit, claim, indices, must_claim


def test_an_output_has_one_active_job(ledger: Ledger, submit_job: Submit, job_spec: MakeSpec) -> None:
    job_id = submit_job(2)
    assert ledger.create(job_spec(), "digest", 1) == (job_id, False)
    with pytest.raises(JobError, match=f"{job_id} is writing there"):
        ledger.create(job_spec(), "another", 1)
    for number in range(2):
        found = must_claim(ledger)
        ledger.complete(found, [number * 4 + i for i in range(4)], {})
    ledger.finish(must_claim(ledger))
    assert ledger.create(job_spec(), "another", 1) == ("cats-2", True)


def test_job_numbers_continue_from_the_larger_of_redis_and_the_output(
    ledger: Ledger, client: redis.Redis, job_spec: MakeSpec
) -> None:
    assert ledger.create(job_spec(), "d", 7)[0] == "cats-7"
    other = job_spec(output="/elsewhere")
    assert ledger.create(other, "d", 1)[0] == "cats-8"


def test_a_second_submitter_of_an_open_job_is_stopped_by_the_cursor(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(1, seal=False)
    incarnation = ledger.incarnation(job_id)
    assert ledger.submission(job_id) == Submission(incarnation, "open", 4, 4, 1, 0)
    ledger.add(
        job_id, incarnation, Addition(cursor=4, new_cursor=8, seal=False, shards=[NewShard(1, 4, b"x")])
    )
    with pytest.raises(JobError, match="another submit"):
        ledger.add(
            job_id, incarnation, Addition(cursor=4, new_cursor=8, seal=False, shards=[NewShard(1, 4, b"x")])
        )
    assert ledger.status(job_id).total == 8
    ledger.add(job_id, incarnation, Addition(cursor=8, new_cursor=8, seal=True, shards=[]))
    with pytest.raises(JobError, match="sealed"):
        ledger.add(job_id, incarnation, Addition(cursor=8, new_cursor=8, seal=True, shards=[]))


def test_an_open_job_does_not_finish_before_it_is_sealed(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(1, seal=False)
    found = must_claim(ledger)
    ledger.complete(found, indices(found), {})
    assert ledger.status(job_id).state == "open"
    assert claim(ledger) is None
    ledger.add(job_id, ledger.incarnation(job_id), Addition(cursor=4, new_cursor=4, seal=True, shards=[]))
    assert must_claim(ledger).kind == "finish"


def test_an_empty_job_finishes(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(0)
    ledger.finish(must_claim(ledger))
    assert ledger.status(job_id).outcome == "complete"


def test_an_ending_job_of_the_same_manifest_is_named_as_such(
    ledger: Ledger, submit_job: Submit, job_spec: MakeSpec
) -> None:
    job_id = submit_job(1)
    must_claim(ledger)
    ledger.control(job_id, "cancel")
    with pytest.raises(JobError, match=f"{job_id}, of this very manifest, is ending there"):
        ledger.create(job_spec(), "digest", 1)


EARLIER = "numbers jobs active output:* job:* leases reaped workers worker:* rates events rows"
"""The keys of an ACL file of an earlier version: without those that say what may be claimed."""


def test_a_user_of_an_earlier_acl_file_is_refused_before_anything_is_stored(
    ledger: Ledger, client: redis.Redis, redis_server: EmbeddedRedis, submit_job: Submit, job_spec: MakeSpec
) -> None:
    job_id = submit_job(0, seal=False)
    before = {key: client.dump(key) for key in client.keys("*")}
    keys = [f"~imagemill:{name}" for name in EARLIER.split()]
    client.execute_command("ACL", "SETUSER", "earlier", "on", ">secret", "+@all", *keys)
    try:
        earlier = Ledger(f"redis://earlier:secret@{redis_server.url.partition('@')[2]}")
        with pytest.raises(LedgerError, match="a file of an earlier version must be printed again"):
            earlier.create(job_spec(output="/data/more"), "digest", 1)
        with pytest.raises(LedgerError, match="a file of an earlier version must be printed again"):
            earlier.add(
                job_id,
                ledger.incarnation(job_id),
                Addition(cursor=0, new_cursor=4, seal=False, shards=[NewShard(0, 4, b"blob")]),
            )
    finally:
        client.execute_command("ACL", "DELUSER", "earlier")
    assert {key: client.dump(key) for key in client.keys("*")} == before
    assert client.hget(redis_keys.job(job_id), "shards") == b"0"
