from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from inspect import getmembers, isfunction
from typing import Protocol

import pytest

from jobs.ledger import redis_keys
from jobs.ledger.job import Addition, Fence, NewShard, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.lua_functions import lua_functions
from jobs.ledger.scripts import Marks, Renewal, Scripts

NOBODY = Fence("cats-9", "0", "0", "0")


@pytest.fixture
def scripts(ledger: Ledger) -> Scripts:
    return lua_functions(Scripts, ledger.client)  # type: ignore[no-any-return]


def test_every_script_is_declared_and_every_declaration_has_a_script() -> None:
    written = {file.name.removesuffix(".lua") for file in files("jobs.ledger.lua").iterdir()}
    declared = {name for name, _ in getmembers(Scripts, isfunction) if not name.startswith("_")}
    shared = {"damage", "prelude", "places", "mend", "look"}
    assert {name for name in written if not name.startswith("__")} == declared | shared


def test_bytes_texts_numbers_and_lists_arrive_as_they_were_sent(
    ledger: Ledger, scripts: Scripts, submit_job: Callable[..., str]
) -> None:
    job_id = submit_job(0, seal=False)
    blobs = [bytes(range(256)), b"", b'"\\\r\n\0', "ü".encode()]
    shards = [NewShard(number, 1, blob) for number, blob in enumerate(blobs)]
    far = 2**53
    incarnation = ledger.incarnation(job_id)
    addition = Addition(cursor=0, new_cursor=far, held=far - 4, seal=False, shards=shards)
    assert scripts.add(job_id=job_id, incarnation=incarnation, addition=addition) == b"added"
    assert list(ledger.shard_blobs(job_id)) == blobs
    status = ledger.status(job_id)
    assert (ledger.submission(job_id).cursor, status.held, status.state) == (far, far - 4, "open")
    last = Addition(cursor=far, new_cursor=far, seal=True, shards=[])
    assert scripts.add(job_id=job_id, incarnation=incarnation, addition=last) == b"added"
    assert ledger.status(job_id).state == "sealed"


def test_fields_and_pairs_arrive_by_their_names(
    ledger: Ledger, scripts: Scripts, submit_job: Callable[..., str]
) -> None:
    job_id = submit_job(1)
    found = ledger.claim("w", WorkerState(), lease=30)
    assert found is not None
    failures = {1: '{"reason": "a \\u0000 of \'cats\'"}', 3: "{}"}
    assert scripts.record(fence=found.fence, marks=Marks([0, 2], [2], failures)) == 2
    reasons = {index: failure["reason"] for index, failure in ledger.failures(job_id).items()}
    assert reasons == {1: "a \0 of 'cats'", 3: "what Redis held of it cannot be read"}
    assert (ledger.status(job_id).flagged, bytes(ledger.done_bits(job_id))) == (1, bytes([0b1010_0000]))
    renewals = [Renewal(NOBODY, [7]), Renewal(found.fence, []), Renewal(found.fence, [2**32 - 1, 0])]
    assert scripts.renew(lease_ms=30_000, renewals=renewals) == [b"lost", b"held", b"held"]
    lease = ledger.client.hget(redis_keys.job(job_id, "leased"), "0")
    assert b'"rows":[4294967295,0]' in lease


def test_a_fence_of_no_job_lets_nothing_pass(ledger: Ledger, scripts: Scripts) -> None:
    marks = Marks([0], [], {})
    assert [
        scripts.release(fence=NOBODY),
        scripts.alone(fence=NOBODY, image=0),
        scripts.record(fence=NOBODY, marks=marks),
        scripts.complete(fence=NOBODY, marks=marks),
        scripts.refuse(fence=NOBODY, worker="w", reason="no", refusal_ms=1),
        scripts.set_aside(fence=NOBODY, reason="torn"),
        scripts.settle_slots(fence=NOBODY, kind="card", size="8x8", slots=2, mixed=True, remembered="card"),
        scripts.cap_slots(fence=NOBODY, kind="card", size="8x8", slots=2),
        scripts.finish(fence=NOBODY, cut=0),
    ] == [-1] * 9
    assert ledger.client.keys("*") == []


def test_a_shards_fence_finishes_no_job(
    scripts: Scripts, ledger: Ledger, submit_job: Callable[..., str]
) -> None:
    job_id = submit_job(1)
    found = ledger.claim("w", WorkerState(), lease=30)
    assert found is not None
    assert scripts.finish(fence=found.fence, cut=0) == -1
    assert ledger.status(job_id).state == "sealed"


def test_a_type_that_no_script_can_read_is_refused_before_anything_runs(ledger: Ledger) -> None:
    class Odd(Protocol):
        def release(self, *, share: float) -> int: ...

    with pytest.raises(TypeError, match="float"):
        lua_functions(Odd, ledger.client)
