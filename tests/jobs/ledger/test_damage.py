"""Every key of the ledger, lost or damaged, in every state of its job, has the way out of docs/faults.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jobs.errors import JobError, JobUnreadable, LedgerError
from jobs.ledger import redis_keys
from jobs.ledger.job import Addition, Claim, JobStatus, NewShard, UnreadableJob
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import EmbeddedRedis
from tests.jobs.ledger.claims import SIZE, MakeSpec, Submit, claim, failure, indices, must_claim

DOCUMENT = Path(__file__).parents[3] / "docs" / "faults.md"
SHARED = {key.removeprefix("imagemill:"): key for key in redis_keys.SHARED}
PARTS = {f"job:ID:{part}": part for part in redis_keys.KINDS}
KEYS = ["job:ID", *PARTS, *SHARED, "output:HASH", "worker:NAME", "claimable:SET"]
DAMAGES = ["lost", "of another kind", "rubbish"]


def documented() -> dict[str, list[str]]:
    """Key -> what leads out of each damage, as the table says."""
    text = DOCUMENT.read_text("utf-8").partition("## A key that is lost or damaged")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    return {key: [way.strip().split()[0].strip("`:,") for way in ways] for key, *ways in rows}


class Mill:
    """A job in a state, a worker without an engine, and a person who knows two commands."""

    def __init__(self, ledger: Ledger, client: redis.Redis, submit: Submit) -> None:
        self.ledger, self.client, self._submit = ledger, client, submit
        self.looks = 1

    def begin(self, state: str) -> str:
        self.client.flushall()
        self.ledger.heartbeat("w1", {"slots": 1})
        job_id = self._submit(2, seal=state != "open")
        if state == "open":
            return job_id
        found = must_claim(self.ledger, lease=0.0 if state in ("leased", "cancelled") else 30.0)
        self.ledger.settle_slots(found, SIZE, slots=4)
        self.ledger.record(found, indices(found)[:1], {}, flagged={indices(found)[0]})
        match state:
            case "waiting":
                self.ledger.release(found)
            case "refused":
                self.ledger.refuse(found, "w9", "no")
            case "cancelled":
                self.ledger.control(job_id, "cancel")
            case "finishing" | "finish leased" | "finished":
                self.ledger.complete(found, indices(found), {})
                found = must_claim(self.ledger)
                self.ledger.complete(found, indices(found)[1:], failure(indices(found)[0]))
                if state == "finish leased":
                    must_claim(self.ledger, lease=0.0)
                if state == "finished":
                    self.ledger.finish(must_claim(self.ledger))
        return job_id

    def damage(self, job_id: str, key: str, how: str) -> None:
        name = self.name(job_id, key)
        kind = self.client.type(name).decode()
        if how == "lost":
            self.client.delete(name)
        elif how == "of another kind":
            expected = self.kind(key)
            self.client.delete(name)
            if expected == "list":
                self.client.set(name, "x")
            else:
                self.client.rpush(name, "x")
        elif kind == "string":
            self.client.set(name, "rubbish")
        elif kind == "hash":
            self.client.hset(name, mapping=dict.fromkeys([*self.client.hkeys(name), "rubbish"], "rubbish"))
        elif kind == "list":
            self.client.lpush(name, "rubbish")
        elif kind == "set":
            self.client.sadd(name, "rubbish")
        elif kind == "zset":
            self.client.zadd(name, {"rubbish": 1, "other/rub/bish": 1})

    def name(self, job_id: str, key: str) -> str:
        if key in SHARED:
            return SHARED[key]
        spec = {
            "output:HASH": redis_keys.output("/data/cats"),
            "worker:NAME": redis_keys.worker("w1"),
            "claimable:SET": f'{redis_keys.CLAIMABLE}:["instant", "instant-1", "auto"]',
        }
        return spec.get(key) or redis_keys.job(job_id, PARTS.get(key))

    def kind(self, key: str) -> str:
        kinds = redis_keys.SHARED | {"output:HASH": "string", "worker:NAME": "hash", "job:ID": "hash"}
        kinds["claimable:SET"] = "zset"
        return kinds.get(SHARED.get(key, key)) or redis_keys.KINDS[PARTS[key]]

    def work(self) -> None:
        """Does what a worker does until nothing is left that it takes."""
        self.ledger.heartbeat("w1", {"slots": 1})
        for _ in range(self.looks):  # what a worker does every second, with any one of the jobs
            self.ledger.reap()
        self.looks = 1
        for _ in range(40):
            found = claim(self.ledger)
            if found is None:
                return
            try:
                self._serve(found)
            except LedgerError as error:
                self.ledger.refuse(found, "w1", str(error))
        raise AssertionError("there is work for ever")

    def _serve(self, found: Claim) -> None:
        self.ledger.spec(found.job_id)
        if found.kind == "finish":
            self.ledger.status(found.job_id)
            self.ledger.finish(found)
        elif not found.blob:
            self.ledger.set_aside(found, "lost")
        else:
            self.ledger.settle_slots(found, SIZE, slots=4)
            self.ledger.record(found, indices(found)[:1], {})
            self.ledger.complete(found, indices(found), {})

    def seal(self, job_id: str) -> None:
        """Goes on with the submission of an open job."""
        at = self.ledger.submission(job_id)
        self.ledger.add(
            job_id, at.incarnation, Addition(cursor=at.cursor, new_cursor=at.cursor, seal=True, shards=[])
        )

    def status(self, job_id: str) -> JobStatus | None:
        """None if it cannot be read, or is gone."""
        try:
            return self.ledger.status(job_id)
        except (JobUnreadable, JobError):
            return None

    def ended(self, job_id: str) -> bool:
        found = self.status(job_id)
        return found is not None and found.state == "finished"

    def told(self, job_id: str) -> str:
        """What `imagemill status` says of the job beside its figures."""
        for job in self.ledger.jobs():
            if job.job_id == job_id:
                reasons = job.reason if isinstance(job, UnreadableJob) else " ".join(job.refusals.values())
                return reasons + ("" if isinstance(job, UnreadableJob) else job.trouble)
        return ""

    def way_out(self, job_id: str, state: str) -> str:
        """Works, and gives the commands that are needed beside; returns the first word of what led out."""
        try:
            if state == "open":
                self.seal(job_id)
        except (JobUnreadable, JobError):
            pass  # it is cancelled below
        self.work()
        if self.ended(job_id):
            return "itself"
        if state == "finished" and job_id not in [job.job_id for job in self.ledger.jobs()]:
            return "itself"  # what is left of it expires
        assert f"imagemill cancel {job_id}" in self.told(job_id), (state, self.told(job_id))
        self.ledger.control(job_id, "cancel")
        self.work()
        assert self.status(job_id) is None or self.ended(job_id), state
        return "cancel"


@pytest.fixture
def mill(ledger: Ledger, client: redis.Redis, submit_job: Submit) -> Iterator[Mill]:
    yield Mill(ledger, client, submit_job)


STATES = ["open", "waiting", "leased", "refused", "cancelled", "finishing", "finish leased", "finished"]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_lost_or_damaged_has_the_way_out_that_is_documented(
    mill: Mill, submit_job: Submit, job_spec: MakeSpec, key: str, how: str
) -> None:
    ways = set()
    for state in STATES:
        job_id = mill.begin(state)
        other = submit_job(1, name="dogs", output="/data/dogs")
        mill.damage(job_id, key, how)
        mill.looks = 25 if key in ("jobs", "active", "leases", "output:HASH") else 2
        mill.work()
        assert mill.ended(other), (state, "another job waits")
        found = mill.way_out(job_id, state)
        if state != "finished":
            ways.add(found)
            if key == "output:HASH":
                assert not mill.client.exists(mill.name(job_id, key)), (state, "what it has stays for ever")
        ended = mill.status(job_id)
        if ended is not None and ended.outcome == "complete":
            counts = (ended.total, ended.done, ended.left, ended.failed)
            assert counts == (8, 8, 0, 0), (state, counts)
            assert mill.ledger.done_bits(job_id).count() == 8, state
        mill.ledger.jobs(), mill.ledger.workers(), mill.ledger.rates()
        next_id, created = mill.ledger.create(job_spec(), "digest", 1)
        assert created, (state, "the output is still taken")
        mill.ledger.add(
            next_id,
            mill.ledger.incarnation(next_id),
            Addition(cursor=0, new_cursor=4, seal=True, shards=[NewShard(7, 4, b"blob")]),
        )
        mill.work()
        assert mill.ended(next_id), state
    assert ways == {documented()[key][DAMAGES.index(how)]}


@pytest.mark.parametrize("damaged", ["done", "failures", "flagged"])
def test_a_jobs_key_is_mended_where_the_list_of_jobs_is_lost_as_well(mill: Mill, damaged: str) -> None:
    job_id = mill.begin("waiting")
    found = must_claim(mill.ledger)
    mill.damage(job_id, f"job:ID:{damaged}", "of another kind")
    mill.client.delete(redis_keys.ACTIVE)
    mill.ledger.complete(found, indices(found)[1:], failure(indices(found)[0]), flagged={indices(found)[1]})
    mill.looks = 25
    mill.work()
    assert mill.ended(job_id)


RUBBISH = b"\xff\xfe"
"""No text in UTF-8."""


def test_what_is_no_text_in_redis_keeps_nobody_from_working(
    ledger: Ledger, redis_server: EmbeddedRedis, submit_job: Submit
) -> None:
    job_id, client = submit_job(2), redis.Redis.from_url(redis_server.url)
    for key in (redis_keys.ACTIVE, redis_keys.JOBS, redis_keys.WORKERS):
        client.zadd(key, {RUBBISH: 4e9})
    client.zadd(redis_keys.LEASES, {RUBBISH: 0, RUBBISH + b"/1": 0})
    client.sadd(redis_keys.job(job_id, "workers"), RUBBISH)
    for key in (
        redis_keys.job(job_id), redis_keys.RATES, redis_keys.worker("w1"),
        *(redis_keys.job(job_id, part) for part in ("refusals", "broken", "failures", "leased")),
    ):  # fmt: skip
        client.hset(key, RUBBISH, RUBBISH)
    client.set(redis_keys.output("/data/others"), RUBBISH)
    client.set(redis_keys.LEDGER, RUBBISH)
    ledger.heartbeat("w1", {"slots": 1})
    ledger.forget_refusals("w1")
    assert ledger.outlook(["w1"], ()).left
    found = must_claim(ledger)
    ledger.complete(found, indices(found), {})
    ledger.reap()
    assert ledger.status(job_id).done == 4
    assert [job.job_id for job in (*ledger.jobs(), *ledger.overview().jobs)] == [job_id] * 2
    assert ledger.workers_of(job_id)[:1] == ["w1"]
    assert ledger.job_ids() == [job_id]
    assert ledger.writer("/data/others") is None
    assert list(ledger.workers()) == ["w1"]
    assert len(ledger.word()) == 16


def test_the_table_has_every_key() -> None:
    assert list(documented()) == KEYS
