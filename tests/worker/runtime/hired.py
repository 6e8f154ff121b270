"""A runtime beside its ledger, for tests that hire workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs.entry import Entry
from jobs.ledger import redis_keys
from jobs.ledger.job import Addition, Claim, JobSpec, JobStatus, NewShard, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import Shard, encode_shard
from jobs.output.output import Output
from jobs.request import ImageRequest
from jobs.settings import Settings
from worker.runtime import Runtime

Wait = Callable[..., None]
LEASE = 3600.0
"""Seconds: longer than any test."""
BASE = ImageRequest(
    prompt="", seed=0, height=8, width=8, guidance_scale=1.0, model="instant", revision="instant-1"
)


class Worker:
    """A runtime beside its ledger; `wakes` keeps what it sends, `announced` what it claims."""

    def __init__(self, url: str, folder: Path, job_spec: Callable[..., JobSpec], **settings: object) -> None:
        self.folder, self.ledger, self._job_spec = folder, Ledger(url), job_spec
        self.wakes: list[int] = []
        self.announced: list[tuple[str, str]] = []
        given = {"output_root": folder, "min_free_disk": 0, "lease": 10.0, "batch_size": 4} | settings
        # By its name at each call: a test may put another in its place.
        self.runtime = Runtime(Settings(**given), url, "w1", lambda count: self.wake(count))  # type: ignore[arg-type]  # noqa: PLW0108
        self.runtime.start()

    def wake(self, count: int) -> None:
        self.wakes.append(count)

    def submit(self, shards: Sequence[int], name: str = "cats", model: str = "instant") -> str:
        """A job with so many images in each of its shards, written to the folder of its name."""
        output = Output(self.folder / name)
        output.prepare()
        base = dataclasses.replace(BASE, model=model)
        spec = self._job_spec(
            manifest={"name": name},
            base=dataclasses.asdict(base),
            name=name,
            output=str(output.path),
            model=model,
            shard_size=max(shards),
        )
        job_id, _ = self.ledger.create(spec, name, 1)
        blobs, start = [], 0
        for number, count in enumerate(shards):
            entries = [
                Entry.of(request=dataclasses.replace(base, prompt=f"{name} {i}", seed=i))
                for i in range(start, start + count)
            ]
            blob = encode_shard(Shard(range(start, start + count), entries), base)
            blobs.append(NewShard(number, count, blob))
            start += count
        self.ledger.add(
            job_id,
            self.ledger.incarnation(job_id),
            Addition(cursor=0, new_cursor=start, seal=True, shards=blobs),
        )
        return job_id

    def serve(self) -> dict[str, Any] | None:
        return self.runtime.serve(lambda job_id, shard: self.announced.append((job_id, shard)))

    def claim(self, name: str) -> Claim:
        """What another worker claims."""
        claim = self.ledger.claim(name, WorkerState(idle_ms=9000), lease=30)
        assert claim is not None
        return claim

    def dies(self, job_id: str, shard: str) -> None:
        """The lease of the worker that holds this runs out and is reaped."""
        self.ledger.client.zadd(redis_keys.LEASES, {f"{job_id}/{shard}": 1})
        self.ledger.reap()

    def status(self, job_id: str) -> JobStatus:
        return self.ledger.status(job_id)


Hire = Callable[..., Worker]
