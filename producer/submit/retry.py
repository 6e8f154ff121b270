"""A finished job's next run: what its output lacks, sent back."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from itertools import chain, islice

from jobs.entry import Entry
from jobs.errors import JobError
from jobs.ledger.job import Bits
from jobs.ledger.shard import Shard, decode_shard
from jobs.output.output import Output
from jobs.request import ImageRequest
from jobs.request_template import RequestTemplate
from producer.job_queue import JobQueue
from producer.reporter import QUIET, Reporter
from producer.requests.folder_entries import names_to_begin
from producer.requests.grouping import parts
from producer.requests.shard_size import shard_size
from producer.submit.output_writes import said_wait, write_errors
from producer.submit.staging import Staging
from producer.submit.writing import writing


def retry_job(job_id: str, queue: JobQueue, reporter: Reporter = QUIET) -> int:
    """Sends back what a finished job's output lacks, as the job's next run; returns how many images.

    `reporter` counts them. Raises ImagemillError; the job is then as it was.
    """
    queue.check()
    ledger = queue.ledger
    status, incarnation = ledger.status(job_id), ledger.incarnation(job_id)
    if status.state != "finished":
        raise JobError(f"{job_id} is {status.state}: retry it when it is finished, or cancel it first")
    spec = ledger.spec(job_id)
    base, output = ImageRequest.from_mapping(spec.base), Output.at(spec.output)
    ledger.refuse_while_written(spec.output, f"retry {job_id}")
    with write_errors(output), writing(output, queue, job_id, reporter) as held:
        # The output decides: images that a cancelled job counted may be only in the spool, and a later job
        # may have rendered what this one left.
        output.close_attempts(said_wait(output, reporter))
        in_output, done = output.held_image_ids(), Bits()
        first = max(output.next_shard(), ledger.first_shard(job_id) + status.shards)
        in_order = all(
            decode_shard(blob, base, spec.name).in_order for blob in islice(ledger.shard_blobs(job_id), 1)
        )
        size = shard_size(output, (spec.shard_size, spec.shard_bytes), base.image_format)
        staging, images, waiting, paths = Staging(ledger, base, in_order=in_order), 0, 0, dict[str, str]()
        shards = (decode_shard(blob, base, spec.name) for blob in ledger.shard_blobs(job_id))
        lacking = _lacking(shards, in_output, done, paths)
        for part in parts(lacking, (), size):
            if part.entries:
                named = chain.from_iterable(entry.inputs for _, entry in part.entries)
                inputs = {sha256: paths[sha256] for sha256 in dict.fromkeys(named) if sha256 in paths}
                staging.add(first + waiting, part.entries, inputs)
                waiting += 1
                images += len(part.entries)
                reporter.count(images)
        if images:
            output.prepare()
            output.settle_names(names_to_begin(spec.layout, first + waiting))
            held.bind(job_id, incarnation)
            ledger.retry(job_id, incarnation, status.run, done, staging.staged(first, waiting))
            queue.wake_for(waiting)
        return images


def _lacking(
    shards: Iterable[Shard], in_output: Container[str], done: Bits, paths: dict[str, str]
) -> Iterator[tuple[int, Entry]]:
    """Yields once each the entries that the output lacks, by index; marks the others in `done`, and adds to
    `paths` those of files that the output does not keep."""
    seen = Bits()
    settings: tuple[object, ...] = ()
    for shard in shards:
        paths.update(shard.inputs)
        for index, entry in zip(shard.indices, shard.entries, strict=True):
            # An image that an earlier retry sent back lies in two shards.
            if not seen.turn(index):
                continue
            if entry.settings is not settings:
                settings, template = entry.settings, RequestTemplate("", entry.request)
            if template.image_id(entry.quoted, entry.seed) in in_output:
                done.turn(index)
            else:
                yield index, entry
