"""Why a job waits, from its status and what workers tell of themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from jobs.ledger.job import JobStatus
from producer.show_waits import print_wait, print_waits, waits_as_json
from producer.why_waiting import in_words, why_it_waits

MakeStatus = Callable[..., JobStatus]
Facts = dict[str, str]
EARLIER = {"pid": "7", "slots": "2", "busy": "0"}
"""What a worker of an earlier version tells."""
IDLE = {"workers": [], "notices": {}, "refusals": {}, "started": 0.0, "shards_leased": 0}
"""A job that nobody works on."""


def told(models: Sequence[str] = (), claims: Sequence[tuple[str, str, int]] = (), **others: str) -> Facts:
    """The facts of a worker's heartbeat."""
    busy = sum(shard != "finish" for _, shard, _ in claims)
    own = {"models": json.dumps(models), "claims": json.dumps(claims), "busy": str(busy), "slots": "2"}
    return own | others


@pytest.mark.parametrize(
    ("changes", "workers", "full", "kind", "words"),
    [
        (IDLE, {}, False, "no worker", ["imagemill-worker"]),
        (IDLE | {"state": "finishing"}, {}, False, "no worker", ["imagemill-worker"]),
        (
            IDLE | {"refused_by": {"w1": "no GPU", "w2": "no GPU"}},
            {},
            False,
            "no worker",
            ["the last ones refused it: no GPU: fix that, then `imagemill resume cats-1`, and start one"],
        ),
        (IDLE | {"state": "finishing"}, {"w1": told()}, False, None, []),
        (IDLE | {"state": "finished"}, {}, False, None, []),
        (IDLE | {"state": "open", "shards_ready": 0}, {"w1": told()}, False, None, []),
        (IDLE | {"paused": True}, {}, False, "paused", ["imagemill resume cats-1"]),
        (IDLE | {"paused": True, "ending": "cancelled"}, {}, False, "ending", []),
        (
            IDLE | {"state": "finishing", "ending": "stopped", "refused_by": {"w1": "no GPU"}},
            {},
            False,
            "ending",
            ["no worker is alive to write its report", "`imagemill cancel cats-1` ends it without a report"],
        ),
        (IDLE | {"ending": "cancelled"}, {"w1": told(["shapes"])}, False, None, []),
        (
            IDLE
            | {"state": "finishing", "ending": "cancelled", "refusals": {"w1": "lies outside", "w2": "gone"}},
            {"w1": told(["shapes"]), "w2": told()},
            False,
            "refused",
            [
                "to finish it: gone; lies outside",
                "imagemill resume cats-1",
                "imagemill cancel cats-1` ends it",
            ],
        ),
        (
            IDLE | {"state": "finishing", "shards_ready": 0, "refusals": {"w1": "lies outside"}},
            {"w1": told(), "w2": told(["shapes"])},
            False,
            None,
            [],
        ),
        ({"notices": {}, "paused": True}, {"gpu0@a": told()}, False, None, []),
        (IDLE, {"w1": told()}, False, None, []),
        (IDLE, {"w1": EARLIER}, False, None, []),
        (IDLE, {"w1": EARLIER | {"busy": "2"}}, False, "behind", ["busy"]),
        (IDLE, {"w1": told()}, True, "Redis full", ["maxmemory"]),
        (
            IDLE,
            {"w1": told(["shapes"]), "w2": told(["org/a", "org/b"])},
            False,
            "model",
            ["takes org/sd", "w1 takes shapes", "w2 takes org/a, org/b", "--model org/sd"],
        ),
        (IDLE, {"w1": told(["shapes"]), "w2": told(["shapes", "org/sd"])}, False, None, []),
        (
            IDLE | {"refusals": {"w2": "no GPU"}},
            {"w1": told(["shapes"]), "w2": told()},
            False,
            "refused",
            ["no GPU", "imagemill resume cats-1"],
        ),
        (IDLE | {"refusals": {"w2": "no GPU"}}, {"w1": told(), "w2": told()}, False, None, []),
        (
            IDLE,
            {"w1": told(claims=[("dogs-1", "3", 5)]), "w2": told(claims=[("owls-2", "0", 1)])},
            False,
            "behind",
            ["owls-2, whose priority 1 goes before 5; dogs-1,"],
        ),
        (IDLE, {"w1": told(claims=[("dogs-1", "3", 5)]), "w2": told()}, False, None, []),
        (
            IDLE,
            {"w1": told(claims=[("dogs-1", "3", 5)], stuck="loading /m since 12:00:00 UTC")},
            False,
            "stuck",
            ["w1: loading /m since"],
        ),
        ({"notices": {}}, {"gpu0@a": told()}, False, None, []),
        ({}, {"gpu0@a": told()}, False, "disk", ["gpu0@a: no space left at /data"]),
        (
            {"notices": {}, "loading": {"gpu0@a": "loading org/sd: 41 s"}},
            {"gpu0@a": told()},
            False,
            "loading",
            ["gpu0@a: loading org/sd: 41 s"],
        ),
        (
            {"notices": {"gpu0@a": "loading org/sd since"}},
            {"gpu0@a": told(stuck="loading org/sd since 12:00:00 UTC")},
            False,
            "stuck",
            ["since 12:00:00 UTC"],
        ),
        # One of its workers renders, so the job moves.
        ({"workers": ["gpu0@a", "gpu1@a"]}, {"gpu0@a": told(), "gpu1@a": told()}, False, None, []),
        ({"notices": {}}, {"w1": told()}, False, "lost", ["gpu0@a is no longer heard of"]),
    ],
)
def test_a_job_waits_for_what_its_status_and_the_workers_tell(
    changes: dict[str, Any],
    workers: dict[str, Facts],
    full: bool,
    kind: str | None,
    words: list[str],
    job_status: MakeStatus,
) -> None:
    wait = why_it_waits(job_status(**changes), workers, full=full)
    assert (None if wait is None else wait.kind) == kind
    assert all(word in (wait.text if wait else "") for word in words), wait


def test_long_lists_are_cut_and_facts_that_cannot_be_read_are_none(job_status: MakeStatus) -> None:
    many = {f"w{n}": told([f"m{n}"]) for n in range(9)}
    wait = why_it_waits(job_status(**IDLE), many)
    assert wait is not None and "w2 takes m2; and 6 more" in wait.text
    odd = {"w1": {"models": "[" * 5000, "claims": '[["a", 1], 3]', "pipeline": "x", "busy": "0"}}
    assert why_it_waits(job_status(**IDLE), odd) is None


def test_a_worker_is_told_by_what_it_takes_and_does_and_one_of_an_earlier_version_as_before() -> None:
    assert in_words("w1", EARLIER) == ""
    assert in_words("w1", told()) == "w1 takes any model, is free"
    busy = told(
        ["shapes"], [("cats-1", "4", 5)], pipeline='["shapes", "s-1", "auto"]', loading="reading x: 3 s"
    )
    assert in_words("w1", busy) == "w1 takes shapes, last took up shapes, works on cats-1 (4), reading x: 3 s"


def test_status_prints_waits_workers_and_twins_and_json_has_the_same(
    job_status: MakeStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_status(**IDLE)
    workers = {"w1": told(["shapes"]), "w2": told(["shapes"], twin="two of it\x1b[31m"), "w3": EARLIER}
    print_waits([job], workers, False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["  w1 takes shapes, is free", "  w2 takes shapes, is free"]
    assert lines[2] == "warning: w2: two of it\\x1b[31m"
    workers.pop("w3")
    print_waits([job], workers, False)
    wait = why_it_waits(job, workers)
    assert wait is not None
    assert capsys.readouterr().out.splitlines()[2] == f"cats-1 waits: {wait.text}"
    print_wait(job, workers, False)
    assert capsys.readouterr().out.splitlines()[0] == f"  waits     {wait.text}"
    assert waits_as_json(job, workers, False) == {"kind": "model", "text": wait.text}


def test_many_jobs_that_wait_for_the_same_share_a_line(
    job_status: MakeStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job_status(**IDLE | {"job_id": f"cats-{n}"}) for n in range(2000)]
    print_waits([*jobs, job_status(**IDLE | {"paused": True})], {}, False)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("cats-0, cats-1, cats-2, cats-3, cats-4 and 1995 more wait: no worker is alive")
