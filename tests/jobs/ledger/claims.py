"""What tests of the ledger say in short: a claim, what it holds, a failure, a first retry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from jobs.ledger.job import Bits, Claim, JobSpec, SlotsKey, Staged, WorkerState
from jobs.ledger.ledger import Ledger

MakeSpec = Callable[..., JobSpec]
Submit = Callable[..., str]
SIZE = SlotsKey(device="card", precision="bf16", revision="1", height=512, width=512)


def claim(ledger: Ledger, worker: str = "w1", *, lease: float = 30.0, **state: Any) -> Claim | None:
    """What a worker of this state gets."""
    return ledger.claim(worker, WorkerState(**state), lease=lease)


def must_claim(ledger: Ledger, worker: str = "w1", **how: Any) -> Claim:
    found = claim(ledger, worker, **how)
    assert found is not None
    return found


def indices(found: Claim) -> list[int]:
    return list(range(int(found.shard) * 4, int(found.shard) * 4 + 4))


def failure(index: int) -> dict[int, dict[str, object]]:
    return {index: {"shard": 0, "position": index, "image_id": f"{index:016x}", "reason": "black"}}


def send_back(ledger: Ledger, job_id: str, done: Iterable[int], shard: int = 1) -> None:
    """Sends a job back for the first time: these images are done, and the blob `again` is to be rendered."""
    bits = Bits()
    for index in done:
        bits.turn(index)
    ledger.stage("word", [(shard, b"again")])
    ledger.retry(job_id, ledger.incarnation(job_id), 1, bits, Staged("word", 1, shard, 1))
