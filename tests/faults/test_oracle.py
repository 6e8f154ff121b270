"""The oracle sees each thing that can be wrong with a finished job, and calls it by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.ledger.redis_keys import job as job_key
from tests.breakable_redis import BreakableRedis
from tests.faults.field import Field, Leg
from tests.faults.oracle import judge

Spoil = Callable[[Field, Leg], object]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Field, Leg]]:
    """A job of 24 images that ended well."""
    folder = tmp_path_factory.mktemp("oracle")
    with BreakableRedis(folder / "redis") as server:
        field = Field(folder, server, seed=1, workers=1)
        field.start_worker("w1")
        leg = field.leg = field.begin("good", 24, shard_size=8)
        assert field.finish(leg).problems == []
        assert field.end_worker("w1") == 0
        yield field, leg
        field.stop()


def bit(field: Field, leg: Leg) -> None:
    field.client.setbit(job_key(leg.job_id, "done"), 30, 1)


def edit(file: str, change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(_field: Field, leg: Leg) -> None:
        path = leg.folder / file
        path.write_bytes(change(path.read_bytes()))

    return spoil


def without_last_line(data: bytes) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:-1])


SPOILT: dict[str, tuple[Spoil, str]] = {
    "a picture is gone": (lambda _f, leg: (leg.folder / "00001" / "000010003.png").unlink(), "is not there"),
    "a picture is another": (edit("00001/000010003.png", lambda data: data[:-20] + b"x" * 20), "SHA-256"),
    "a line of metadata is gone": (edit("00000/metadata.jsonl", without_last_line), "lost: 1"),
    "a shard is gone": (lambda _f, leg: shutil.rmtree(leg.folder / "00002"), "lost: 8"),
    "a shard is there twice": (
        lambda _f, leg: shutil.copytree(leg.folder / "00000", leg.folder / "00003"), "doubled"
    ),
    "a picture too many": (
        lambda _f, leg: shutil.copy(leg.folder / "00000" / "000000000.png", leg.folder / "00000" / "x.png"),
        "25 files, 24 records",
    ),
    "a bit too many": (bit, "25 bits"),
    "a bit is missing": (
        lambda f, leg: f.client.setbit(job_key(leg.job_id, "done"), 3, 0), "23 bits, 24 counted"
    ),
    "an image counted twice": (lambda f, leg: f.client.hincrby(job_key(leg.job_id), "done", 1), "25 done"),
    "an image still to do": (lambda f, leg: f.client.hincrby(job_key(leg.job_id), "left", 1), "1 left"),
    "a failure": (lambda f, leg: f.client.hincrby(job_key(leg.job_id), "failed", 1), "1 failed"),
    "a second finish event": (
        lambda f, leg: f.client.xadd("imagemill:events", {"event": "finished", "job": leg.job_id, "run": 1}),
        "finish events of [1, 1]",
    ),
    "no finish event": (lambda f, _l: f.client.delete("imagemill:events"), "finish events of []"),
    "the job is not finished": (
        lambda f, leg: f.client.hset(job_key(leg.job_id), "state", "finishing"), "is finishing"
    ),
    "a lease is left": (
        lambda f, leg: f.client.zadd("imagemill:leases", {f"{leg.job_id}/2": 1}), "leases are still there"
    ),
    "the job is still active": (
        lambda f, leg: f.client.zadd("imagemill:active", {leg.job_id: 5}), "still active"
    ),
    "a key without TTL": (lambda f, leg: f.client.persist(job_key(leg.job_id, "done")), "has no TTL"),
    "the output is still taken": (
        lambda f, leg: f.client.set("imagemill:output:x", leg.job_id), "has no TTL"
    ),
    "the spool is left": (lambda _f, leg: (leg.folder / ".imagemill" / "spool").mkdir(), "spool"),
    "a temporary file is left": (
        lambda _f, leg: (leg.folder / "00000" / ".a.png.1.tmp").write_bytes(b""), "left behind"
    ),
    "a report of something else": (
        edit("job.json", lambda data: data.replace(b'"complete"', b'"cancelled"')), "job.json says"
    ),
    "a picture that no metadata names": (
        lambda _f, leg: (leg.folder / "cat.png").write_bytes(b"no picture"), "doctor"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_the_oracle_names_what_is_wrong(finished: tuple[Field, Leg], tmp_path: Path, what: str) -> None:
    field, leg = finished
    kept = {key: (field.client.dump(key), field.client.pttl(key)) for key in field.client.scan_iter("*")}
    copy = tmp_path / leg.name
    shutil.copytree(leg.folder, copy)
    spoilt = Leg(leg.name, leg.job_id, leg.images, str(copy), leg.asked)
    spoil, message = SPOILT[what]
    spoil(field, spoilt)
    try:
        problems = judge(str(copy), field.client, leg.job_id, leg.asked).problems
    finally:
        field.client.flushall()
        for key, (value, ttl) in kept.items():
            field.client.restore(key, max(ttl, 0), value)
    assert any(message in problem for problem in problems), problems


def test_the_oracle_finds_nothing_wrong_with_what_is_right(finished: tuple[Field, Leg]) -> None:
    field, leg = finished
    verdict = judge(leg.output, field.client, leg.job_id, leg.asked, [*field.begun(), leg.asked[0]])
    facts = [verdict.images, verdict.files, verdict.bits, verdict.counted, verdict.lost, verdict.doubled]
    assert (facts, verdict.finish_events, verdict.problems) == ([24, 24, 24, 24, 0, 0], 1, [])
    assert verdict.regenerated == 1, "an image that was begun twice was rendered again"
    assert json.loads((leg.folder / "job.json").read_text())["images"]["done"] == 24
