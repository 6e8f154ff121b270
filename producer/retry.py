"""A finished job's next run: what its output lacks, sent back."""

from __future__ import annotations

from pathlib import Path

from jobs.broker import celery_app, wake
from jobs.errors import JobError
from jobs.grouping import parts
from jobs.job import is_done
from jobs.ledger import Ledger
from jobs.output import Output
from jobs.request import Entry, ImageRequest
from jobs.shard import Shard, decode_shard, encode_shard
from producer.submit import wake_ups


def retry(job_id: str, ledger: Ledger, url: str) -> int:
    """Sends back what a finished job's output lacks, as the job's next run; returns how many images."""
    status = ledger.status(job_id)
    if status.state != "finished":
        raise JobError(f"{job_id} is {status.state}: retry it when it is finished, or cancel it first")
    spec = ledger.spec(job_id)
    base, output = ImageRequest.from_mapping(spec.base), Output(Path(spec.output))
    # The output decides: what a cancelled job counted may lie in the spool alone, and a later job may have
    # rendered what this one left.
    output.close_attempts()
    in_output, done = output.held_image_ids(), ledger.done_bits(job_id)
    held: set[int] = set()
    lacking: dict[int, Entry] = {}
    for blob in ledger.shard_blobs(job_id):
        shard = decode_shard(blob, base, spec.name)
        for index, entry in zip(shard.indices, shard.entries, strict=True):
            if entry.request.image_id not in in_output:
                lacking[index] = entry
            elif not is_done(done, index):
                held.add(index)
    if not lacking:
        return 0
    number = max(output.next_shard(), ledger.first_shard(job_id) + status.shards)
    shards = list[tuple[int, bytes]]()
    for part in parts(sorted(lacking.items()), (), spec.shard_size):
        if part.entries:
            indices, entries = zip(*part.entries, strict=True)
            shards.append((number + len(shards), encode_shard(Shard(indices, entries), base)))
    incarnation = ledger.incarnation(job_id)
    ledger.retry(job_id, incarnation, status.run, sorted(held), sorted(lacking), shards)
    wake(celery_app(url), min(len(shards), wake_ups(ledger)))
    return len(lacking)
