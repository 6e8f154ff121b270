"""A folder with a manifest and its output, a Redis that may lose everything, and a played worker."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from jobs.entry import Entry
from jobs.ledger import redis_keys
from jobs.ledger.job import Claim, JobStatus, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import Shard, decode_shard
from jobs.output.metadata import Failure, metadata_record
from jobs.output.output import Output
from jobs.output.shard_names import FLAT
from jobs.output.store import Stage
from jobs.output.stored_shard import LayoutName
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.job_queue import JobQueue
from producer.requests.prepared import prepare
from producer.submit.recover import Recovered, recover_job
from producer.submit.submit import submit_manifest


class Desk:
    """A folder with a manifest and its output, a Redis that may lose everything, and a played worker."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.file = folder / "cats.yaml"
        self.queue = JobQueue.at(url)
        self.ledger = self.queue.ledger
        self.client: Any = redis.Redis.from_url(url)
        self.output = Output(folder / "out")
        self.layout: LayoutName = "files"

    def write(self, prompts: Sequence[object] | int, **keys: object) -> None:
        lines = [f"picture {n}" for n in range(prompts)] if isinstance(prompts, int) else list(prompts)
        manifest = {
            "name": "cats",
            "model": "instant",
            "output": str(self.output.path),
            "layout": self.layout,
            "shard_size": 4,
            "settings": {"height": 64, "width": 64},
            "prompts": lines,
        } | keys
        self.file.write_text(json.dumps(manifest))  # JSON is YAML

    def submit(self, prompts: Sequence[object] | int, *, sample: int | None = None, **keys: object) -> str:
        self.write(prompts, **keys)
        return submit_manifest(prepare(self.file, Settings(), sample=sample), self.queue).job_id

    def claim(self) -> Claim:
        claim = self.ledger.claim("w1", WorkerState(idle_ms=9000), lease=30)
        assert claim is not None
        return claim

    def decoded(self, job_id: str, blob: bytes) -> Shard:
        spec = self.ledger.spec(job_id)
        return decode_shard(blob, ImageRequest.from_mapping(spec.base), spec.name)

    def render(self, failed: Collection[int] = (), flagged: Collection[int] = ()) -> list[int]:
        """Commits the next shard and records it in the ledger; returns the indices it was about."""
        claim = self.claim()
        assert claim.kind == "shard"
        shard, number = self.decoded(claim.job_id, claim.blob), int(claim.shard)
        images = self.output.spool_folder(number, claim.attempt) / "images"
        images.mkdir(parents=True)
        rows, failures = [], dict[int, Failure]()
        for position, (index, entry) in enumerate(zip(shard.indices, shard.entries, strict=True)):
            if index in failed:
                failures[index] = Failure(
                    shard=number,
                    position=position,
                    entry=entry,
                    reason="black",
                    job_id=claim.job_id,
                    command="",
                )
                continue
            name = f"{FLAT.key(number, position)}.png"
            (images / name).write_bytes(b"a picture")
            doubt = "one flat colour" if index in flagged else None
            names = {"file_name": name, "sha256": "", "job_id": claim.job_id, "flagged": doubt}
            rows.append(metadata_record(entry, **names, rendered={}, column_names=()))
        self.output.stored(number, self.layout).commit(
            images, rows, list(failures.values()), Stage(images.parent, "x", lambda: None)
        )
        found = {
            index: {"shard": number, "position": one.position, "image_id": one.image_id, "reason": one.reason}
            for index, one in failures.items()
        }
        done = [index for index in shard.indices if index not in failed]
        self.ledger.complete(claim, done, found, set(flagged) & set(done))
        return list(shard.indices)

    def finish(self) -> None:
        claim = self.claim()
        assert claim.kind == "finish"
        self.ledger.finish(claim)

    def lose(self) -> None:
        self.client.flushall()

    def recover(self, ledger: Ledger | None = None) -> Recovered:
        queue = self.queue if ledger is None else replace(self.queue, ledger=ledger)
        return recover_job(self.file, Settings(), queue)

    def entries(self, job_id: str) -> dict[int, Entry]:
        """What lies in the job's shards, by index; an image in two shards fails the test."""
        found: dict[int, Entry] = {}
        for blob in self.ledger.shard_blobs(job_id):
            shard = self.decoded(job_id, blob)
            for index, entry in zip(shard.indices, shard.entries, strict=True):
                assert index not in found
                found[index] = entry
        return found

    def waiting(self, job_id: str) -> list[int]:
        return [int(number) for number in self.client.lrange(redis_keys.job(job_id, "ready"), 0, -1)]

    def shard_numbers(self, job_id: str) -> list[int]:
        return sorted(int(number) for number in self.client.hkeys(redis_keys.job(job_id, "shards")))


def figures(status: JobStatus) -> tuple[int, ...]:
    return (status.total, status.left, status.done, status.failed, status.flagged, status.held)
