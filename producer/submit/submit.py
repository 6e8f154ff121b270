"""From a manifest to a job in the ledger: only what the output does not hold yet, shard by shard.

Nothing is written before the manifest, its model, its latents and all its prompts were found good. An
interrupted submission is gone on with by submitting the same manifest again: it gives the same shards, of
which the ledger knows how many it has.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from jobs.errors import JobError, LatentsError, LedgerFull, ManifestError, OutputError, Overtaken
from jobs.failpoints import failpoint
from jobs.ledger.broker import celery_app, wake
from jobs.ledger.job import JobSpec, Submission
from jobs.ledger.ledger import Ledger
from jobs.ledger.ledger_view import LedgerView
from jobs.output.output import Output
from producer.manifest.latents import gather_latents
from producer.manifest.submitted import SubmittedManifest
from producer.prompt_files.sources import Reading
from producer.requests.expand import base_request
from producer.submit.pack import Packed, PackedShard, pack
from producer.submit.prepare import Prepared
from producer.submit.staging import chunk_is_full


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a submission came to."""

    job_id: str
    attached: bool
    """The same manifest was being rendered already, or its submission was gone on with."""
    images: int
    """To be rendered by the job."""
    held: int
    """Were in the output already."""
    duplicates: int
    """Lines that ask for an image that another line asks for too."""
    output: str
    remark: str
    """What to know of the model before looking at the pictures."""
    skipped: int = 0
    """Rows of prompt files that were left out because something is wrong with them."""
    skipped_rows: tuple[str, ...] = ()
    """The first of those: `FILE:LINE: what`."""
    skipped_file: str | None = None
    """Where all of them are listed."""


def packed_for(
    prepared: Prepared, ledger: LedgerView, on_images: Callable[[int], None] = lambda images: None
) -> AbstractContextManager[Packed]:
    """What `store` stores: packed so that a submission that was interrupted is gone on with."""
    return pack(prepared, below=_begun_at(prepared, ledger), on_images=on_images)


def submit(
    prepared: Prepared,
    ledger: Ledger,
    url: str,
    on_images: Callable[[int], None] = lambda images: None,
    say: Callable[[str], None] = lambda line: None,
) -> Submitted:
    """Packs and stores the job of one manifest, as `store` does. Raises ImagemillError."""
    ledger.ping()
    with packed_for(prepared, ledger, on_images) as packed:
        return store(packed, ledger, url, on_images, say)


def store(
    packed: Packed,
    ledger: Ledger,
    url: str,
    on_images: Callable[[int], None] = lambda images: None,
    say: Callable[[str], None] = lambda line: None,
) -> Submitted:
    """Stores a job and wakes workers; waits, and says so, while Redis is full.

    Raises ImagemillError; what was stored until then is gone on with.
    """
    with os_errors_as_ours(packed.prepared.output):
        return _store(packed, ledger, url, on_images, say)


@contextmanager
def os_errors_as_ours(output: Output) -> Iterator[None]:
    """What the system says against writing to the output is raised as OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"output {output.path} cannot be written ({error.strerror}: {error.filename}): "
            "make it writable or free some space, and run the same command to go on"
        ) from None


def _store(
    packed: Packed,
    ledger: Ledger,
    url: str,
    on_images: Callable[[int], None],
    say: Callable[[str], None],
) -> Submitted:
    prepared = packed.prepared
    manifest, output = prepared.manifest, prepared.output
    keep_inputs(prepared)
    spec, files = job_spec(prepared), file_hashes(prepared, packed.reading)
    pinned = manifest.model_copy(update={"revision": prepared.model.revision})
    kept = SubmittedManifest(pinned, prepared.narrowed, files)
    try:
        job_id, created = ledger.create(
            spec, digest(prepared, spec, files), output.next_job_number(manifest.name)
        )
    except JobError:
        _refuse_changed_files(output, kept, ledger)
        raise
    with ExitStack() as stack:
        while (at := ledger.submission(job_id)).state == "open":
            output.write_job_manifest(job_id, kept.to_json())
            if packed.reading.skipped:
                packed.write_skipped(output.skipped_rows(job_id))
            # The output is ours from here on. While we packed, another submission of this job may have begun,
            # of which nothing counts as held, or another job may have ended, of which everything does.
            below = at.first_shard if at.shards else None
            if not at.shards:
                output.close_attempts()
            if packed.below != below or (below is None and packed.found != output.shards()):
                packed = stack.enter_context(pack(prepared, below=below))
            try:
                _fill(packed, at, job_id, ledger, url, on_images, say)
            except Overtaken:
                continue
    status = ledger.status(job_id)
    return Submitted(
        job_id=job_id,
        attached=not created,
        images=status.total,
        held=status.held,
        skipped=packed.reading.skipped,
        skipped_rows=tuple(packed.reading.skipped_rows),
        skipped_file=str(output.skipped_rows(job_id)) if packed.reading.skipped else None,
        duplicates=packed.duplicates,
        output=str(output.path),
        remark=prepared.model.remark,
    )


def _begun_at(prepared: Prepared, ledger: LedgerView) -> int | None:
    """The first shard of the job that is being submitted to the output, when there is one."""
    job_id = ledger.writer(str(prepared.output.path))
    first_shard = -1 if job_id is None else ledger.first_shard(job_id)
    return None if first_shard < 0 else first_shard


def _refuse_changed_files(output: Output, asked: SubmittedManifest, ledger: Ledger) -> None:
    """Says so when the job that owns the output was begun with this very manifest and other files."""
    job_id = ledger.writer(str(output.path))
    if job_id is None or ledger.status(job_id).ending:
        return
    try:
        begun = SubmittedManifest.parse(output.job_manifest(job_id).read_bytes())
    except (FileNotFoundError, ManifestError):
        return  # then there is no telling, and the ledger's own refusal is told
    before, now = ({} if one.files is None else one.files for one in (begun, asked))
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if names and replace(begun, files=asked.files) == asked:
        more = ", …" if len(names) > 3 else ""
        raise JobError(
            f"{', '.join(names[:3])}{more}: not as it was when {job_id} was begun: put it back to go on "
            f"with {job_id}, or `imagemill cancel {job_id}` and submit again"
        ) from None


def _fill(
    packed: Packed,
    at: Submission,
    job_id: str,
    ledger: Ledger,
    url: str,
    on_images: Callable[[int], None],
    say: Callable[[str], None],
) -> None:
    """Stores the shards that the job does not have yet, and seals it."""
    stored, left = packed.shards[: at.shards], packed.shards[at.shards :]
    before = stored[-1] if stored else PackedShard(0, 0, 0, 0, 0)
    if (len(stored), sum(shard.images for shard in stored)) != (at.shards, at.images) or (
        before.taken != at.cursor
    ):
        raise JobError(
            f"{packed.prepared.output.path}: changed since {job_id} was begun, so that its submission cannot "
            f"go on: `imagemill cancel {job_id}` and submit again"
        )
    app, images = celery_app(url), at.images
    number = at.first_shard + at.shards if at.shards else packed.prepared.output.next_shard()
    cursor, held = before.taken, before.held
    for position, (chunk, last) in enumerate(_chunks(left)):
        taken = packed.taken if last else chunk[-1].taken
        now_held = packed.held if last else chunk[-1].held
        shards = [(number + i, shard.images, packed.blob(shard)) for i, shard in enumerate(chunk)]
        add = partial(
            ledger.add, job_id, at.incarnation, cursor, taken, shards, held=now_held - held, seal=last
        )
        _once_there_is_room(add, say)
        failpoint("chunk stored")
        if at.shards == position == 0:
            _once_there_is_room(partial(wake, app, min(len(shards), wake_ups(ledger))), say)
        number, cursor, held = number + len(chunk), taken, now_held
        images += sum(shard.images for shard in chunk)
        on_images(images)
    _once_there_is_room(partial(wake, app, 1), say)


def _chunks(shards: list[PackedShard]) -> Iterator[tuple[list[PackedShard], bool]]:
    """The shards as they are sent, and whether these are the last; without shards, one empty chunk."""
    chunk: list[PackedShard] = []
    for shard in shards:
        if chunk_is_full(len(chunk), sum(one.size for one in chunk)):
            yield chunk, False
            chunk = []
        chunk.append(shard)
    yield chunk, True


def _once_there_is_room(write: Callable[[], None], say: Callable[[str], None]) -> None:
    """Writes to Redis as soon as it takes it: one that is full has room again when jobs expire, or when
    somebody gives it more."""
    said = False
    while True:
        try:
            return write()
        except LedgerFull as error:
            if not said:
                say(f"{error}; waiting for room (Ctrl-C ends it, and the same command goes on)")
                said = True
            time.sleep(1.0)


def keep_inputs(prepared: Prepared) -> None:
    """Makes the output, and keeps the manifest's initial latents there. Raises LatentsError, OutputError."""
    prepared.output.prepare()
    kept = gather_latents(prepared.manifest, prepared.model, prepared.output.inputs)
    for name, sha in kept.items():
        if sha != prepared.latents[name]:
            raise LatentsError(f"{name}: changed after it was checked: submit again")


def job_spec(prepared: Prepared) -> JobSpec:
    """What workers are told of a job of the manifest."""
    manifest, model = prepared.manifest, prepared.model
    return JobSpec(
        manifest={key: value for key, value in written(prepared).items() if key != "prompts"},
        base=asdict(base_request(manifest, model)),
        name=manifest.name,
        output=str(prepared.output.path),
        model=model.model,
        revision=model.revision,
        precision=manifest.precision,
        mode=manifest.mode,
        layout=manifest.layout,
        column_names=manifest.column_names(),
        shard_size=manifest.shard_size,
        priority=manifest.priority,
        max_failures=manifest.max_failures,
        retention=manifest.retention,
        narrowed=prepared.narrowed,
    )


def written(prepared: Prepared) -> dict[str, Any]:
    """The manifest as JSON, with the revision that its model has now."""
    return prepared.manifest.to_json() | {"revision": prepared.model.revision}


def file_hashes(prepared: Prepared, reading: Reading) -> dict[str, str]:
    """Every file that the manifest names -> the SHA-256 of its contents."""
    return dict(sorted((prepared.latents | reading.sha256).items()))


def digest(prepared: Prepared, spec: JobSpec, files: Mapping[str, str]) -> str:
    """What makes two submissions the same: the manifest, its files' contents, how it was narrowed."""
    told = json.dumps([asdict(spec), written(prepared), files], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def wake_ups(ledger: LedgerView) -> int:
    """About twice the task slots there are."""
    slots = sum(int(facts.get("slots", 1)) for facts in ledger.workers().values())
    return max(2, 2 * slots)
