"""What may be claimed is kept in sets: a claim by them is the one that a look at every job would give."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import redis

from jobs.errors import JobError, LeaseLost
from jobs.ledger import redis_keys
from jobs.ledger.job import Addition, Bits, Claim, NewShard, Recovery, Staged, WorkerState
from jobs.ledger.ledger import ENOUGH, Ledger
from tests.jobs.ledger.claims import MakeSpec, Submit, claim, must_claim

WORKERS = ("w1", "w2", "w3")
MODELS = ("model-a", "model-b", "model-c")


@dataclass(frozen=True)
class Found:
    """A job of which something may be claimed, as a look at all its keys shows it."""

    job_id: str
    kind: str
    pipeline: str
    priority: int
    leased: int
    waiting_since: float
    last_claim: float
    ready: int

    @property
    def order(self) -> tuple[int, int, float, bytes]:
        return self.priority, self.leased, self.last_claim, self.job_id.encode()


def all_found(client: redis.Redis, worker: str, models: Sequence[str]) -> list[Found]:
    """What a worker may claim, by a look at every unfinished job, in the order of priorities and ids."""
    found = []
    for raw_id in _of(client.zrange(redis_keys.ACTIVE, 0, -1)):
        job_id = raw_id.decode()
        job = {k.decode(): v.decode() for k, v in _of(client.hgetall(redis_keys.job(job_id))).items()}
        refusal = client.hget(redis_keys.job(job_id, "refusals"), worker)
        if refusal is not None and json.loads(_of(refusal))["until"] > now(client):
            continue
        leased = _of(client.hlen(redis_keys.job(job_id, "leased")))
        ready = _of(client.llen(redis_keys.job(job_id, "ready")))
        if job["state"] == "finishing" and leased == 0:
            expiries = client.hget(redis_keys.job(job_id, "expiries"), "finish")
            doubted = expiries is not None and json.loads(_of(expiries))["count"] >= 3
            kind = "doubted" if doubted else "finish"
        elif job["state"] in ("open", "sealed") and job["paused"] != "1" and not job["ending"] and ready:
            if models and job["model"] not in models:
                continue
            kind = "shard"
        else:
            continue
        figures = (float(job["waiting_since"]), float(job["last_claim"]))
        found.append(Found(job_id, kind, job["pipeline"], int(job["priority"]), leased, *figures, ready))
    return found


def expected(client: redis.Redis, worker: str, state: WorkerState) -> tuple[str, str] | None:
    """Kind and job of the claim that the rules give, which the head of claim.lua states."""
    found = all_found(client, worker, state.models)
    for one in found:
        if one.kind == "finish":
            return "finish", one.job_id
    shards = sorted((one for one in found if one.kind == "shard"), key=lambda one: one.order)
    own = next((one for one in shards if state.loaded in ("", one.pipeline)), None)
    other = next((one for one in shards if state.loaded not in ("", one.pipeline)), None)
    if own is not None and other is not None:
        waited = now(client) - max(other.waiting_since, other.last_claim)
        if other.priority <= own.priority and waited > 60_000:
            return "shard", other.job_id
    if own is not None:
        return "shard", own.job_id
    if other is not None:
        return ("shard", other.job_id) if state.idle_ms >= 2000 else None
    held = {json.loads(lease)["w"] for lease in _leases(client)}
    doubted = next((one for one in found if one.kind == "doubted"), None)
    return ("finish", doubted.job_id) if doubted is not None and worker not in held else None


def _leases(client: redis.Redis) -> Iterator[bytes]:
    for job_id in _of(client.zrange(redis_keys.ACTIVE, 0, -1)):
        yield from _of(client.hvals(redis_keys.job(job_id.decode(), "leased")))


def now(client: redis.Redis) -> float:
    seconds, micros = _of(client.time())
    return float(seconds * 1000 + micros / 1000)


def _of(answer: Any) -> Any:
    """redis-py types each answer for asyncio too."""
    return answer


class Farm:
    """Does one thing after the other to the jobs of a ledger, as chance has it."""

    def __init__(self, ledger: Ledger, client: redis.Redis, job_spec: MakeSpec, seed: int) -> None:
        self.ledger, self.client, self.job_spec = ledger, client, job_spec
        self.draw, self.numbers = random.Random(seed), count()
        self.held: list[tuple[str, Claim]] = []
        self.claimed = 0

    def step(self) -> None:
        steps: dict[Callable[[], object], int] = {
            self.submit: 4,
            self.claim: 12,
            self.complete: 6,
            self.release: 2,
            self.refuse: 2,
            self.set_aside: 1,
            self.die: 2,
            self.control: 3,
            self.wait_long: 1,
            self.retry: 1,
            self.recover: 1,
            self.forget: 1,
        }
        self.draw.choices([*steps], [*steps.values()])[0]()

    def submit(self) -> None:
        number = next(self.numbers)
        spec = self.job_spec(
            name=f"n{number}",
            output=f"/data/{number}",
            model=self.draw.choice(MODELS),
            priority=self.draw.choice((1, 5, 5, 9)),
        )
        job_id, _created = self.ledger.create(spec, "digest", 1)
        shards = [NewShard(shard, 4, b"blob") for shard in range(self.draw.randint(0, 3))]
        incarnation = self.ledger.incarnation(job_id)
        self.ledger.add(
            job_id,
            incarnation,
            Addition(cursor=0, new_cursor=len(shards), seal=self.draw.random() < 0.9, shards=shards),
        )

    def claim(self) -> None:
        worker, idle_ms = self.draw.choice(WORKERS), self.draw.choice((0, 3000))
        loaded = self.draw.choice(["", *(self.job_spec(model=model).pipeline for model in MODELS)])
        models = self.draw.choice([(), (), MODELS[:1], MODELS[1:]])
        self.ledger.reap()
        waiting = sum(one.ready if one.kind == "shard" else 1 for one in self._all(worker, models))
        assert self.ledger.waiting(worker, models, enough=1000) == waiting
        assert self.ledger.waiting(worker, models) == min(waiting, ENOUGH)
        assert self.ledger.waiting(worker, models, enough=1) == min(waiting, 1)
        state = WorkerState(loaded=loaded, idle_ms=idle_ms, models=models)
        wanted = expected(self.client, worker, state)
        found = self.ledger.claim(worker, state, lease=30)
        assert wanted == (None if found is None else (found.kind, found.job_id))
        if found is not None:
            self.claimed += 1
            self.held.append((worker, found))

    def _all(self, worker: str, models: tuple[str, ...]) -> list[Found]:
        return all_found(self.client, worker, models)

    def complete(self) -> None:
        if (taken := self._take()) is None:
            return
        _worker, found = taken
        if found.kind == "finish":
            self.ledger.finish(found)
        else:
            first = int(found.shard) * 4
            self.ledger.complete(found, [first, first + 1, first + 2, first + 3], {})

    def release(self) -> None:
        if (taken := self._take()) is not None:
            self.ledger.release(taken[1])

    def refuse(self) -> None:
        if (taken := self._take()) is not None:
            self.ledger.refuse(taken[1], taken[0], "no")

    def set_aside(self) -> None:
        taken = self._take()
        if taken is not None and taken[1].kind == "shard":
            self.ledger.set_aside(taken[1], "torn")

    def die(self) -> None:
        if (taken := self._take()) is not None:
            self.client.zadd(redis_keys.LEASES, {f"{taken[1].job_id}/{taken[1].shard}": 1})
            self.ledger.reap()

    def control(self) -> None:
        if (job_id := self._any_job()) is not None:
            try:
                self.ledger.control(
                    job_id, self.draw.choice(("pause", "pause", "resume", "resume", "cancel"))
                )
            except JobError:
                return

    def wait_long(self) -> None:
        if (job_id := self._any_job()) is not None:
            self.client.hset(redis_keys.job(job_id), mapping={"waiting_since": 0, "last_claim": 1000})
            # No script writes it, so none has moved its place.
            self.client.delete(redis_keys.CLAIMABLE)

    def retry(self) -> None:
        for job_id in self.ledger.job_ids():
            status = self.ledger.status(job_id)
            if status.state == "finished":
                word, shard = f"word{next(self.numbers)}", status.shards
                self.ledger.stage(word, [(shard, b"again")])
                staged = Staged(word, 1, shard, 1)
                self.ledger.retry(job_id, self.ledger.incarnation(job_id), status.run, Bits(), staged)
                return

    def recover(self) -> None:
        job_id = self._any_job()
        if job_id is None:
            return
        spec = self.ledger.spec(job_id)
        self.held = [(worker, found) for worker, found in self.held if found.job_id != job_id]
        self.client.delete(*(redis_keys.job(job_id, part) for part in (None, *redis_keys.JOB_PARTS)))
        word = f"word{next(self.numbers)}"
        self.ledger.stage(word, [(0, b"blob"), (1, b"blob")])
        recovery = Recovery(staged=Staged(word, 2, 0, 2), total=8, held=0, done=b"", flagged=b"", failures={})
        self.ledger.recover(job_id, spec, "digest", recovery)

    def forget(self) -> None:
        self.ledger.forget_refusals(self.draw.choice(WORKERS))

    def _take(self) -> tuple[str, Claim] | None:
        return self.held.pop(self.draw.randrange(len(self.held))) if self.held else None

    def _any_job(self) -> str | None:
        jobs = _of(self.client.zrange(redis_keys.ACTIVE, 0, -1))
        return self.draw.choice(jobs).decode() if jobs else None


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_to_jobs_a_claim_is_the_one_that_a_look_at_every_job_gives(
    ledger: Ledger, client: redis.Redis, job_spec: MakeSpec, seed: int
) -> None:
    farm = Farm(ledger, client, job_spec, seed)
    for _ in range(120):
        try:
            farm.step()
        except LeaseLost:
            continue
    assert farm.claimed > 20


def calls_of(client: redis.Redis, do: Callable[[], object]) -> int:
    """How many commands Redis ran for a call, those of its scripts too."""
    client.config_resetstat()
    do()
    stats = _of(client.info("commandstats"))
    return sum(command["calls"] for name, command in stats.items() if not name.startswith("cmdstat_config"))


def test_a_claim_costs_the_same_however_many_jobs_wait_or_are_not_for_this_worker(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    def submit(jobs: range) -> None:
        for number in jobs:
            submit_job(1, name=f"n{number}", output=f"/{number}", model=MODELS[number % 2])
            if number % 3 == 0:
                ledger.control(f"n{number}-1", "pause")

    def cost() -> tuple[int, int]:
        return (
            calls_of(client, lambda: ledger.release(must_claim(ledger, models=MODELS[:1]))),
            calls_of(client, lambda: ledger.waiting("w1", MODELS[:1], enough=1)),
        )

    submit(range(10))
    # The first claim in a Redis writes the list, and each script's first call sends it.
    cost()
    of_ten = cost()
    submit(range(10, 110))
    # Two jobs, drawn by chance, are looked at as well; one that is paused takes two commands less.
    assert all(abs(now - before) <= 4 for now, before in zip(cost(), of_ten, strict=True))


def test_a_job_that_a_worker_refused_costs_its_later_claims_one_command(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    for number in range(42):
        submit_job(1, name=f"n{number}", output=f"/{number}")
    for _ in range(40):
        ledger.refuse(must_claim(ledger, "w1"), "w1", "no")
    of_another = calls_of(client, lambda: ledger.release(must_claim(ledger, "w2")))
    assert calls_of(client, lambda: ledger.release(must_claim(ledger, "w1"))) <= of_another + 44


def test_jobs_that_an_earlier_version_stored_are_found_by_the_next_claim(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    ending = submit_job(1, name="ending", output="/ending")
    ledger.complete(must_claim(ledger), [0, 1, 2, 3], {})
    waiting = submit_job(2)
    for job_id in (ending, waiting):
        client.hdel(redis_keys.job(job_id), "place")
    client.delete(*client.keys(redis_keys.CLAIMABLE + "*"))
    assert ledger.waiting("w1", ()) == 3
    assert [must_claim(ledger).kind for _ in range(3)] == ["finish", "shard", "shard"]


@pytest.mark.parametrize("key", [redis_keys.CLAIMABLE, redis_keys.CLAIMABLE + ":"])
@pytest.mark.parametrize("rubbish", [None, "rubbish"])
def test_a_list_of_claimable_jobs_that_is_lost_or_rubbish_is_made_again_by_the_next_claim(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, job_spec: MakeSpec, key: str, rubbish: str | None
) -> None:
    submit_job(2)
    assert ledger.waiting("w1", ()) == 2
    name = key + job_spec().pipeline if key.endswith(":") else key
    assert client.delete(name) == 1
    if rubbish is not None:
        client.set(name, rubbish)
    for _ in range(2):
        must_claim(ledger)
    assert ledger.waiting("w1", ()) == 0


def test_a_job_whose_place_is_lost_gets_it_back_from_a_sweep(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, job_spec: MakeSpec
) -> None:
    submit_job(1, name="other", output="/other")
    lost = submit_job(1)
    assert ledger.waiting("w1", ()) == 2
    places = f"{redis_keys.CLAIMABLE}:{job_spec().pipeline}"
    [place] = [one for one in _of(client.zrange(places, 0, -1)) if lost in one.decode()]
    client.zrem(places, place)
    assert ledger.waiting("w1", ()) == 1
    client.set(redis_keys.SWEPT, "rubbish")
    ledger.reap()
    assert ledger.waiting("w1", ()) == 2


def test_a_place_that_is_out_of_date_misleads_no_claim(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    first, second = (submit_job(1, name=name, output=f"/{name}") for name in ("first", "second"))
    assert ledger.waiting("w1", ()) == 2
    # As an earlier version writes it.
    client.hset(redis_keys.job(first), "paused", 1)
    assert must_claim(ledger).job_id == second
    assert claim(ledger) is None


@pytest.mark.parametrize("places_as_well", [False, True])
def test_a_claim_that_finds_only_places_that_are_out_of_date_finds_the_job(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, job_spec: MakeSpec, places_as_well: bool
) -> None:
    job_id = submit_job(1)
    assert ledger.waiting("w1", ()) == 1
    right, wrong = job_spec().pipeline, '["another model"]'
    client.rename(f"{redis_keys.CLAIMABLE}:{right}", f"{redis_keys.CLAIMABLE}:{wrong}")
    client.hdel(redis_keys.CLAIMABLE, right)
    client.hset(redis_keys.CLAIMABLE, wrong, "another model")
    if not places_as_well:
        client.hdel(redis_keys.job(job_id), "place")
    # So that no sweep puts it right.
    client.hset(redis_keys.SWEPT, mapping={"at": int(now(client)), "next": 0})
    assert must_claim(ledger).job_id == job_id
    assert claim(ledger) is None


def test_sweeps_come_to_every_job_in_turn_and_not_more_often_than_each_second(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    for number in range(70):
        submit_job(1, name=f"n{number}", output=f"/{number}")
    client.hset(redis_keys.CLAIMABLE, "whole", 1)
    swept = []
    for at in (0, now(client) + 60_000, 0):
        for number in range(70):
            client.hdel(redis_keys.job(f"n{number}-1"), "place")
        client.hset(redis_keys.SWEPT, "at", int(at))
        ledger.reap()
        ledger.reap()
        places = [client.hexists(redis_keys.job(f"n{number}-1"), "place") for number in range(70)]
        swept.append(sum(map(bool, places)))
    # Each `reap` looks at two more, drawn by chance.
    assert all(many <= found <= many + 4 for found, many in zip(swept, (50, 20, 50), strict=True))
