"""From a manifest to a job in the ledger: only what the output does not hold yet, shard by shard.

Nothing is written before the manifest, its model and its latents were found good. An interrupted
submission is gone on with by submitting the same manifest again: the ledger's cursor says from where.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jobs.broker import celery_app, wake
from jobs.errors import JobError, LatentsError, OutputError, Overtaken
from jobs.expand import Identified, base_request, identify, limit, sample
from jobs.job import JobSpec, is_done
from jobs.ledger import Ledger
from jobs.ledger_view import LedgerView
from jobs.manifest import Manifest, load_manifest
from jobs.manifest_latents import gather_latents
from jobs.models import ModelRef
from jobs.output import Output
from jobs.prompt_files.sources import Sources, check_sources
from jobs.request import Entry, ImageRequest
from jobs.settings import Settings
from jobs.shard import Shard, decode_shard, encode_shard

_CHUNK = 64
"""Shards sent to Redis in one call."""


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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A manifest that was found good: everything that can be wrong with it is behind us."""

    manifest: Manifest
    model: ModelRef
    latents: dict[str, str]
    sources: Sources
    output: Output
    limit: int | None
    sample: int | None

    @property
    def narrowed(self) -> str:
        """The option that narrows the submission, as it was given."""
        if self.limit is not None:
            return f"--limit {self.limit}"
        return f"--sample {self.sample}" if self.sample is not None else ""

    def entries(self, on_duplicate: Callable[[Entry], None]) -> Iterable[Identified]:
        """The requests that the submission is about, in order. Raises ManifestError when a file changed."""
        entries = identify(
            self.manifest, self.model, on_duplicate, latents=self.latents, sources=self.sources
        )
        if self.limit is not None:
            return limit(entries, self.limit)
        return sample(entries, self.sample, self.manifest.name) if self.sample is not None else entries


def prepare(
    path: Path, settings: Settings, *, limit: int | None = None, sample: int | None = None
) -> Prepared:
    """Reads and checks all that a job needs; writes nothing. Raises ImagemillError."""
    manifest = load_manifest(path)
    model = manifest.resolve_model()
    latents = gather_latents(manifest, model)
    assert manifest.output is not None, "load_manifest fills it in"
    output = Output(Path(manifest.output))
    if settings.output_root is not None:
        output.check_within(settings.output_root)
    return Prepared(manifest, model, latents, check_sources(manifest), output, limit, sample)


def submit(prepared: Prepared, ledger: Ledger, url: str) -> Submitted:
    """Stores the job and wakes workers. Raises ImagemillError; what was stored until then is gone on with."""
    try:
        return _store(prepared, ledger, url)
    except OSError as error:
        raise OutputError(
            f"output {prepared.output.path} cannot be written ({error.strerror}: {error.filename}): make it "
            "writable or free some space, and run the same command to go on"
        ) from None


def _store(prepared: Prepared, ledger: Ledger, url: str) -> Submitted:
    manifest, output = prepared.manifest, prepared.output
    ledger.ping()
    output.prepare()
    kept = gather_latents(manifest, prepared.model, output.inputs)
    for name, sha in kept.items():
        if sha != prepared.latents[name]:
            raise LatentsError(f"{name}: changed after it was checked: submit again")
    spec = _spec(prepared)
    try:
        job_id, created = ledger.create(spec, _digest(prepared, spec), output.next_job_number(manifest.name))
    except JobError:
        _refuse_changed_files(prepared, spec, ledger)
        raise
    duplicates = 0

    def count(_entry: Entry) -> None:
        nonlocal duplicates
        duplicates += 1

    while ledger.submission(job_id).state == "open":
        output.write_job_manifest(job_id, _written(prepared) | {"narrowed": prepared.narrowed})
        duplicates = 0
        try:
            _fill(prepared, spec, job_id, ledger, url, prepared.entries(count))
        except Overtaken:
            continue
    status = ledger.status(job_id)
    return Submitted(
        job_id=job_id,
        attached=not created,
        images=status.total,
        held=status.held,
        skipped=prepared.sources.skipped,
        skipped_rows=prepared.sources.skipped_rows,
        duplicates=duplicates,
        output=str(output.path),
        remark=prepared.model.remark,
    )


def _refuse_changed_files(prepared: Prepared, spec: JobSpec, ledger: Ledger) -> None:
    """Says so when the job that owns the output is of this very manifest: then a file of it was another."""
    written = _written(prepared)
    for job_id in ledger.job_ids():
        status, kept = ledger.status(job_id), prepared.output.jobs / f"{job_id}.json"
        if status.output != spec.output or status.state == "finished" or status.ending or not kept.exists():
            continue
        manifest = json.loads(kept.read_text("utf-8"))
        same = {key: manifest.get(key) for key in written} == written
        if same and ledger.spec(job_id).narrowed == spec.narrowed:
            names = [*prepared.latents, *prepared.sources.identity]
            more = ", …" if len(names) > 3 else ""
            raise JobError(
                f"{', '.join(names[:3])}{more}: not as it was when {job_id} was begun: put it back to go on "
                f"with {job_id}, or `imagemill cancel {job_id}` and submit again"
            ) from None


def _fill(
    prepared: Prepared, spec: JobSpec, job_id: str, ledger: Ledger, url: str, entries: Iterable[Identified]
) -> None:
    """Stores the job's shards from where its submission stands, and seals it."""
    at = ledger.submission(job_id)
    base = ImageRequest.from_mapping(spec.base)
    held = prepared.output.held_image_ids()
    number = at.first_shard + at.shards if at.shards else prepared.output.next_shard()
    cursor, index = at.cursor, at.images
    app = celery_app(url)
    for taken, wanted in _chunks(islice(entries, cursor, None), held, spec.shard_size):
        shards = []
        for start in range(0, len(wanted), spec.shard_size):
            part = wanted[start : start + spec.shard_size]
            shard = Shard(range(index, index + len(part)), part)
            shards.append((number, len(part), encode_shard(shard, base)))
            number, index = number + 1, index + len(part)
        ledger.add(
            job_id, at.incarnation, cursor, cursor + taken, shards, held=taken - len(wanted), seal=False
        )
        if cursor == 0:
            wake(app, min(len(shards), _wake_ups(ledger)))
        cursor += taken
    ledger.add(job_id, at.incarnation, cursor, cursor, [], seal=True)
    wake(app, 1)


def _chunks(
    entries: Iterator[Identified], held: set[str], shard_size: int
) -> Iterator[tuple[int, list[Entry]]]:
    """Lines in chunks: how many were taken, and those of them that the output does not hold.

    Every chunk but the last fills whole shards.
    """
    taken, wanted = 0, list[Entry]()
    for image_id, entry in entries:
        taken += 1
        if image_id not in held:
            wanted.append(entry)
        if len(wanted) == _CHUNK * shard_size:
            yield taken, wanted
            taken, wanted = 0, []
    if taken:
        yield taken, wanted


def retry(job_id: str, ledger: Ledger, url: str) -> int:
    """Sends back what a finished job's output lacks, as the job's next run; returns how many images."""
    status = ledger.status(job_id)
    if status.state != "finished":
        raise JobError(f"{job_id} is {status.state}: retry it when it is finished, or cancel it first")
    spec = ledger.spec(job_id)
    base, output = ImageRequest.from_mapping(spec.base), Output(Path(spec.output))
    # The output decides: what a cancelled job counted may lie in the spool alone, and a later job may have
    # rendered what this one left.
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
    again, shards = sorted(lacking.items()), []
    for start in range(0, len(again), spec.shard_size):
        part = again[start : start + spec.shard_size]
        shards.append((number, encode_shard(Shard([i for i, _ in part], [e for _, e in part]), base)))
        number += 1
    incarnation = ledger.incarnation(job_id)
    ledger.retry(job_id, incarnation, status.run, sorted(held), sorted(lacking), shards)
    wake(celery_app(url), min(len(shards), _wake_ups(ledger)))
    return len(lacking)


def _spec(prepared: Prepared) -> JobSpec:
    manifest, model = prepared.manifest, prepared.model
    return JobSpec(
        manifest={key: value for key, value in _written(prepared).items() if key != "prompts"},
        base=asdict(base_request(manifest, model)),
        name=manifest.name,
        output=str(prepared.output.path),
        model=model.model,
        revision=model.revision,
        precision=manifest.precision,
        mode=manifest.mode,
        column_names=manifest.column_names(),
        shard_size=manifest.shard_size,
        priority=manifest.priority,
        max_failures=manifest.max_failures,
        retention=manifest.retention,
        narrowed=prepared.narrowed,
    )


def _written(prepared: Prepared) -> dict[str, Any]:
    """The manifest as JSON, with the revision that its model has now."""
    return prepared.manifest.to_json() | {"revision": prepared.model.revision}


def _digest(prepared: Prepared, spec: JobSpec) -> str:
    """What makes two submissions the same: the manifest, its files' contents, how it was narrowed."""
    files = sorted((prepared.latents | prepared.sources.identity).items())
    told = json.dumps([asdict(spec), _written(prepared), files], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _wake_ups(ledger: LedgerView) -> int:
    """About twice the task slots there are."""
    slots = sum(int(facts.get("slots", 1)) for facts in ledger.workers().values())
    return max(2, 2 * slots)
