"""Every Lua script of the ledger as a typed function: `release(fence=claim.fence)` runs `lua/release.lua`.

How an argument travels to a script, which reads it by the same name: `jobs.ledger.lua_functions`. Images are
given by their index in the job.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from jobs.ledger import redis_keys
from jobs.ledger.job import Addition, Fence, JobSpec, Recovery, Staged, WorkerState, failures_as_json


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What `create` and `recover` make a job from."""

    name: str
    digest: str
    output_key: str
    priority: int
    spec: str
    """JSON of the JobSpec."""
    fields: Mapping[str, str]
    """The fields of the job's hash that follow from the spec."""

    @classmethod
    def of(cls, spec: JobSpec, digest: str) -> NewJob:
        """A job of this spec; `digest` is the hash of what is submitted."""
        return cls(
            name=spec.name,
            digest=digest,
            output_key=redis_keys.output(spec.output),
            priority=spec.priority,
            spec=json.dumps(spec.to_mapping(), ensure_ascii=False),
            fields={
                "name": spec.name,
                "output": spec.output,
                "model": spec.model,
                "pipeline": spec.pipeline,
                "max_failures": str(0 if spec.max_failures is None else spec.max_failures),
                "retention": str(spec.retention),
            },
        )


@dataclass(frozen=True, slots=True)
class Renewal:
    """A lease to renew, and the images, by index in the job, that are in the worker's slots for it."""

    fence: Fence
    slots: Sequence[int]


@dataclass(frozen=True, slots=True)
class Marks:
    """What became of images of a shard."""

    done: Sequence[int]
    flagged: Sequence[int]
    """Those of `done` that are kept but doubted."""
    failures: Mapping[int, str]
    """Image -> JSON."""

    @classmethod
    def of(
        cls, done: Sequence[int], flagged: Collection[int], failed: Mapping[int, Mapping[str, Any]]
    ) -> Marks:
        """Marks of these images; of `flagged` only those that are done."""
        return cls(done, [image for image in done if image in flagged], failures_as_json(failed))


class Scripts(Protocol):
    """Every script. A fenced one changes nothing and returns -1 if another attempt holds the lease."""

    # Submitting.

    def create(self, *, new: NewJob, incarnation: str, least_number: int) -> tuple[bytes, bytes]:
        """Makes a job, or finds the active one that owns the output; returns what it did and the job's id."""

    def add(self, *, job_id: str, incarnation: str, addition: Addition) -> bytes:
        """Adds shards to an open job."""

    def recover(self, *, job_id: str, new: NewJob, recovery: Recovery) -> bytes:
        """Puts back a job that Redis lost."""

    # Rendering.

    def claim(self, *, worker: str, token: str, lease_ms: int, state: WorkerState) -> list[bytes]:
        """Leases the next shard, or the finishing of a job."""

    def renew(self, *, lease_ms: int, renewals: Sequence[Renewal]) -> list[bytes]:
        """Renews leases; returns "held", "lost" or "ending" for each."""

    def alone(self, *, fence: Fence, image: int) -> int:
        """Notes that one image has its worker's slots to itself from now on."""

    def record(self, *, fence: Fence, marks: Marks) -> int:
        """Records images while their shard is being rendered; returns how many were not done before."""

    def complete(self, *, fence: Fence, marks: Marks) -> int:
        """Records all images of a committed shard and ends its lease; returns as `record`."""

    def release(self, *, fence: Fence) -> int:
        """Gives a shard back unfinished."""

    def refuse(self, *, fence: Fence, worker: str, reason: str, refusal_ms: int) -> int:
        """Gives a shard back and keeps its job from this worker for a while."""

    def set_aside(self, *, fence: Fence, reason: str) -> int:
        """Takes a shard that cannot be read out of its job."""

    def settle_slots(
        self, *, fence: Fence, kind: str, size: str, slots: int, mixed: bool, remembered: str
    ) -> int | bytes:
        """Settles how many slots a job's forwards have, or returns the other kind of device that began it.

        `slots` 0 only looks. `remembered` is what a measurement is remembered under, "" if it is none.
        """

    def cap_slots(self, *, fence: Fence, kind: str, size: str, slots: int) -> int:
        """Lowers the number of slots of a job's forwards."""

    def finish(self, *, fence: Fence, cut: int) -> int:
        """Ends a job for good; `cut`: its images whose prompt was cut."""

    def reap(self) -> int:
        """Puts back every shard whose lease ran out; returns how many."""

    def waiting(self, *, worker: str, models: Sequence[str], enough: int) -> int:
        """How many claims a worker would find now; counts no further than `enough`."""

    def outlook(self, *, workers: Sequence[str], models: Sequence[str]) -> list[int]:
        """What may still come to these workers: the fields of `jobs.ledger.job.Outlook`."""

    def heartbeat(self, *, worker: str, facts: Mapping[str, str]) -> int:
        """Notes that a worker is alive, and facts about it."""

    # Steering.

    def control(
        self, *, job_id: str, action: Literal["pause", "resume", "cancel"], reason: str, readable: bool
    ) -> bytes:
        """Pauses, resumes or cancels a job; `readable`: whether the caller can read its settings."""

    def retry(self, *, job_id: str, incarnation: str, run: int, done: bytes, staged: Staged) -> bytes:
        """Opens the next run of a finished job."""
