"""From a manifest to a job in the ledger: only what the output does not hold yet, shard by shard.

Nothing is written before the manifest, its model, its latents and all its prompts were found good. An
interrupted submission is resumed by submitting the same manifest again: it gives the same shards, and the
ledger knows how many of them it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from jobs.errors import JobError, LedgerFull, ManifestError, OutputError, Overtaken
from jobs.failpoints import failpoint
from jobs.ledger.job import Addition, NewShard, Submission
from jobs.ledger.ledger import Ledger
from jobs.ledger.ledger_view import LedgerView
from jobs.ledger.shard import decode_shard
from jobs.output.job_files import JobFiles, next_job_number
from jobs.plain_file import MAX_JSON
from jobs.wording import some
from producer.job_queue import JobQueue
from producer.manifest.base_request import base_request
from producer.manifest.path_names import PathNames, remember_paths
from producer.manifest.submitted import SubmittedManifest
from producer.reporter import QUIET, Reporter
from producer.requests.prepared import Prepared
from producer.submit.chunk import in_chunks
from producer.submit.job_spec import digest, file_hashes, job_spec
from producer.submit.output_writes import keep_inputs, said_wait, write_errors
from producer.submit.packed import Packed, PackedShard, pack
from producer.submit.writing import writing


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a submission came to."""

    job_id: str
    attached: bool
    """The same manifest was being rendered already, or its submission was resumed."""
    images: int
    """To be rendered by the job."""
    held: int
    """Images that were in the output already."""
    duplicates: int
    """Lines that are equal to an earlier one in all they say."""
    output: str
    remark: str
    """What to know about the model before looking at the pictures."""
    skipped: int = 0
    """Rows of prompt files that were left out because something is wrong with them."""
    skipped_rows: tuple[str, ...] = ()
    """The first of those: `FILE:LINE: what`."""
    skipped_file: str | None = None
    """Where all of them are listed."""
    json_columns: Mapping[str, str] = field(default_factory=dict)
    """The user's columns that are written as JSON text, and why."""
    left_out: tuple[str, ...] = ()
    """What was left out of prompt files as meant: comments, and flags that change no picture."""
    equal_lines: int = 0
    """Lines that share a picture with another line of the manifest."""
    added_lines: int = 0
    """Lines that the output lacks, of pictures that it has."""
    reused_ids: int = 0
    """Lines whose id another prompt has, too."""
    first_reused_ids: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    """What to know of the rows of prompt files: settings that come from columns, guidance that is off."""
    syntax: tuple[str, ...] = ()
    """What looks like syntax that is not read, a sentence each kind."""


def packed_for(
    prepared: Prepared, ledger: LedgerView, reporter: Reporter = QUIET
) -> AbstractContextManager[Packed]:
    """What `store` stores, packed so that an interrupted submission is resumed."""
    return pack(prepared, below=_begun_at(prepared, ledger), reporter=reporter)


def submit_manifest(prepared: Prepared, queue: JobQueue, reporter: Reporter = QUIET) -> Submitted:
    """Packs and stores the job of one manifest, as `store` does. Raises ImagemillError."""
    queue.check()
    with packed_for(prepared, queue.ledger, reporter) as packed:
        return store(packed, queue, reporter)


def store(packed: Packed, queue: JobQueue, reporter: Reporter = QUIET) -> Submitted:
    """Stores a job and wakes workers; waits, and reports it, while Redis is full.

    `reporter` counts the images in the ledger. Raises ImagemillError; the same submission then resumes
    with what was stored until then.
    """
    prepared, ledger = packed.prepared, queue.ledger
    manifest, output = prepared.manifest, prepared.output
    room = packed.room()
    # What is resumed has a part of its shards there already.
    if room.refusal and packed.below is None:
        raise OutputError(room.refusal)
    with write_errors(output), ExitStack() as stack:
        held = stack.enter_context(writing(output, queue, manifest.name, reporter))
        keep_inputs(prepared, reporter)
        spec, files = job_spec(prepared), file_hashes(prepared, packed.reading)
        pipeline = (prepared.model.pipeline or "") if prepared.inputs.some else ""
        kept = SubmittedManifest(prepared.pinned, prepared.narrowed, files, pipeline)
        try:
            job_id, created = ledger.create(
                spec, digest(prepared, spec, files), next_job_number(output, manifest.name)
            )
        except JobError:
            _refuse_changed_files(prepared, kept, ledger)
            raise
        held.keep()
        while (at := ledger.submission(job_id)).state == "open":
            held.bind(job_id, at.incarnation)
            names = PathNames(prepared.folder)
            JobFiles(output, job_id).write_manifest(names.of_manifest(kept.to_json()))
            remember_paths(output.label, manifest.name, names)
            if packed.reading.skipped:
                packed.write_skipped(job_id, names)
            # From here on only this job writes to the output. Since the shards were packed, another
            # submission of this job may have begun, whose images do not count as held, or another job may
            # have ended, whose images do.
            below = at.first_shard if at.shards else None
            if not at.shards:
                output.close_attempts(said_wait(output, reporter))
            if packed.below != below or (below is None and packed.found != output.shards()):
                packed = stack.enter_context(pack(prepared, below=below))
                keep_inputs(prepared, reporter)
            if at.shards:
                _refuse_former_numbers(packed, job_id, ledger)
            else:
                output.settle_names(packed.room().names)
            packed.write_lines(job_id)
            try:
                _fill(packed, at, job_id, queue, reporter)
            except Overtaken:
                continue
        status, reading = ledger.status(job_id), packed.reading
        return Submitted(
            job_id=job_id,
            attached=not created,
            images=status.total,
            held=status.held,
            skipped=reading.skipped,
            skipped_rows=tuple(reading.skipped_rows),
            skipped_file=output.named(JobFiles(output, job_id).skipped_rows) if reading.skipped else None,
            left_out=tuple(reading.left_out()),
            told=tuple(reading.told()),
            syntax=tuple(reading.marks.warnings(manifest.read_syntax)),
            duplicates=packed.duplicates,
            equal_lines=packed.equal_lines,
            added_lines=packed.added_lines,
            reused_ids=packed.repeats.ids,
            first_reused_ids=tuple(packed.repeats.first_ids),
            output=output.label,
            remark="; ".join(one for one in (prepared.remark, room.remark) if one),
            json_columns=packed.json_columns,
        )


def _begun_at(prepared: Prepared, ledger: LedgerView) -> int | None:
    """The first shard of the job that is being submitted to the output, when there is one."""
    job_id = ledger.writer(prepared.output.label)
    first_shard = -1 if job_id is None else ledger.first_shard(job_id)
    return None if first_shard < 0 else first_shard


def _refuse_changed_files(prepared: Prepared, asked: SubmittedManifest, ledger: Ledger) -> None:
    """Raises JobError when the job that owns the output was begun with this manifest and other files."""
    output = prepared.output
    job_id = ledger.writer(output.label)
    if job_id is None or ledger.status(job_id).ending:
        return
    try:
        begun = SubmittedManifest.parse(output.store.read(JobFiles(output, job_id).manifest, MAX_JSON))
    except (OSError, ManifestError):
        return  # nothing can be compared: the ledger's own error stands
    changes = begun.changes(asked, prepared.folder)
    if changes and all(change.is_file for change in changes):
        names = some([change.name for change in changes])
        raise JobError(
            f"{names}: not as it was when {job_id} was begun: put it back to resume "
            f"{job_id}, or `imagemill cancel {job_id}` and submit again"
        ) from None


def _refuse_former_numbers(packed: Packed, job_id: str, ledger: Ledger) -> None:
    """Raises JobError for a job whose submission an imagemill began that numbered lines as it packed them."""
    prepared = packed.prepared
    base = base_request(prepared.manifest, prepared.model)
    for blob in islice(ledger.shard_blobs(job_id), 1):
        if not decode_shard(blob, base, prepared.manifest.name).in_order:
            raise JobError(
                f"{job_id}: an earlier version of imagemill began to submit it, and numbered its lines in "
                f"another way: submit it with that version, or `imagemill cancel {job_id}` and submit again"
            )


def _fill(packed: Packed, at: Submission, job_id: str, queue: JobQueue, reporter: Reporter) -> None:
    """Stores the shards that the job does not have yet, and seals it."""
    stored, left = packed.shards[: at.shards], packed.shards[at.shards :]
    before = stored[-1] if stored else PackedShard(0, 0, 0, 0, 0)
    if (len(stored), sum(shard.images for shard in stored)) != (at.shards, at.images) or (
        before.taken != at.cursor
    ):
        raise JobError(
            f"{packed.prepared.output.label}: changed since {job_id} was begun, so its submission cannot be "
            f"resumed: `imagemill cancel {job_id}` and submit again"
        )
    images = at.images
    number = at.first_shard + at.shards if at.shards else packed.prepared.output.next_shard()
    cursor, held = before.taken, before.held
    for position, (chunk, last) in enumerate(in_chunks((shard, shard.size) for shard in left)):
        taken = packed.taken if last else chunk[-1].taken
        now_held = packed.held if last else chunk[-1].held
        shards = [NewShard(number + i, shard.images, packed.blob(shard)) for i, shard in enumerate(chunk)]
        addition = Addition(cursor=cursor, new_cursor=taken, held=now_held - held, seal=last, shards=shards)
        _once_there_is_room(partial(queue.ledger.add, job_id, at.incarnation, addition), reporter)
        failpoint("chunk stored")
        if at.shards == position == 0:
            _once_there_is_room(partial(queue.wake_for, len(shards)), reporter)
        number, cursor, held = number + len(chunk), taken, now_held
        images += sum(shard.images for shard in chunk)
        reporter.count(images)
    _once_there_is_room(partial(queue.wake, 1), reporter)


def _once_there_is_room(write: Callable[[], None], reporter: Reporter) -> None:
    """Writes to Redis as soon as it has room: when jobs expire, or when its limit is raised."""
    reported = False
    while True:
        try:
            return write()
        except LedgerFull as error:
            if not reported:
                reporter.line(f"{error}; waiting for room (Ctrl-C stops, and the same command continues)")
                reported = True
            time.sleep(1.0)
