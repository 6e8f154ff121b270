"""A folder with manifests, submitted to a real ledger and rendered by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from jobs.entry import Entry
from jobs.ledger import redis_keys
from jobs.ledger.job import Claim, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import decode_shard
from jobs.output.output import Output
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.job_queue import JobQueue
from producer.manifest.manifest import load_manifest
from producer.requests.prepared import prepare
from producer.submit.submit import Submitted, submit_manifest
from tests.expanded import expand


class Desk:
    """A folder with manifests, and the ledger that they are submitted to."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.queue = JobQueue.at(url)
        self.ledger = self.queue.ledger
        self.client: Any = redis.Redis.from_url(url)
        self.output = Output(folder / "out")

    def write(self, prompts: Sequence[object] | int, **keys: object) -> Path:
        lines = [f"picture {n}" for n in range(prompts)] if isinstance(prompts, int) else list(prompts)
        manifest = {
            "name": "cats",
            "model": "instant",
            "output": str(self.output.path),
            "shard_size": 2,
            "settings": {"height": 64, "width": 64},
            "prompts": lines,
        } | keys
        file = self.folder / "cats.yaml"
        file.write_text(json.dumps(manifest))  # JSON is YAML
        return file

    def submit(
        self,
        prompts: Sequence[object] | int,
        *,
        ledger: Ledger | None = None,
        limit: int | None = None,
        sample: int | None = None,
        **keys: object,
    ) -> Submitted:
        prepared = prepare(self.write(prompts, **keys), Settings(), limit=limit, sample=sample)
        return submit_manifest(prepared, self.queue if ledger is None else replace(self.queue, ledger=ledger))

    def asked(self) -> list[Entry]:
        """Every entry of the manifest as it stands, in order."""
        manifest = load_manifest(self.folder / "cats.yaml")
        return list(expand(manifest, manifest.resolve_model()))

    def stored(self, job_id: str) -> dict[int, Entry]:
        """Every entry in the job's shards by its index; one that stands twice fails the test."""
        spec = self.ledger.spec(job_id)
        found: dict[int, Entry] = {}
        for blob in self.ledger.shard_blobs(job_id):
            shard = decode_shard(blob, ImageRequest.from_mapping(spec.base), spec.name)
            assert 1 <= len(shard.entries) <= spec.shard_size
            for index, entry in zip(shard.indices, shard.entries, strict=True):
                assert index not in found
                found[index] = entry
        return found

    def shard_numbers(self, job_id: str) -> list[int]:
        return sorted(int(number) for number in self.client.hkeys(redis_keys.job(job_id, "shards")))

    def queued(self) -> int:
        return int(self.client.llen(redis_keys.QUEUE))

    def put_in_output(self, shard: int, entries: Iterable[Entry]) -> None:
        """A committed shard that holds these images."""
        folder = self.output.shard_folder(shard)
        folder.mkdir(parents=True)
        rows = []
        for position, entry in enumerate(entries):
            name = f"{position}.png"
            (folder / name).write_bytes(b"a picture")
            rows.append(json.dumps({"file_name": name, "image_id": entry.request.image_id}) + "\n")
        (folder / "metadata.jsonl").write_text("".join(rows))

    def claim(self) -> Claim:
        claim = self.ledger.claim("w1", WorkerState(idle_ms=9000), lease=30)
        assert claim is not None
        return claim

    def render(self, failed: Sequence[int] = ()) -> list[int]:
        """Plays a worker that completes the next shard; returns the indices it was about."""
        claim = self.claim()
        assert claim.kind == "shard"
        spec = self.ledger.spec(claim.job_id)
        shard = decode_shard(claim.blob, ImageRequest.from_mapping(spec.base), spec.name)
        failures: dict[int, dict[str, object]] = {
            i: {"shard": int(claim.shard), "position": 0, "image_id": "0" * 16, "reason": "black"}
            for i in shard.indices
            if i in failed
        }
        done = [(i, entry) for i, entry in zip(shard.indices, shard.entries, strict=True) if i not in failed]
        self.put_in_output(int(claim.shard), [entry for _, entry in done])
        self.ledger.complete(claim, [i for i, _ in done], failures)
        return list(shard.indices)

    def finish(self) -> None:
        claim = self.claim()
        assert claim.kind == "finish"
        self.ledger.finish(claim)
