"""A job that Redis lost, restored from its manifest and its output under its old id.

The output shows what is done and what failed; the manifest shows what else was asked for. The ledger takes
the job in one step at the end, so an interrupted recovery changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jobs.entry import Entry
from jobs.errors import JobError, ManifestError, OutputError
from jobs.ledger.job import Bits, Recovery, failures_as_json
from jobs.ledger.ledger import Ledger
from jobs.models.models import ModelDefaults
from jobs.output.job_files import JobFiles, next_job_number
from jobs.output.metadata import Failure
from jobs.output.nested_kinds import ColumnTypes
from jobs.output.output import Output
from jobs.output.output_lock import locked
from jobs.plain_file import MAX_JSON
from jobs.settings import Settings
from jobs.wording import counted, some
from producer.job_queue import JobQueue
from producer.manifest.base_request import base_request
from producer.manifest.submitted import Change, SubmittedManifest
from producer.prompt_files.reading import Reading
from producer.reporter import QUIET, Reporter
from producer.requests.expand import EqualLine, Identified, Repeats
from producer.requests.folder_entries import names_to_begin
from producer.requests.grouping import parts
from producer.requests.prepared import Prepared, prepare
from producer.submit.job_spec import digest, file_hashes, job_spec
from producer.submit.output_writes import keep_inputs, said_wait, write_errors
from producer.submit.staging import Staging
from producer.submit.writing import writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The state in which a job was restored."""

    job_id: str
    images: int
    done: int
    failed: int
    flagged: int
    left: int
    """Neither done nor failed."""
    held: int
    """Images of the manifest that the output has from other jobs; they are not in this one."""
    output: str
    reason: str
    """Why the rest is not rendered; empty when it is."""
    skipped: int
    """Rows of prompt files that were left out because something is wrong with them."""
    skipped_rows: tuple[str, ...]
    """The first of those: `FILE:LINE: what`."""


@dataclass(frozen=True, slots=True)
class _Settled:
    """What the output holds of an image of the job."""

    shard: int
    flagged: bool = False
    failure: Failure | None = None
    """None when it is done."""


def recover_job(file: Path, settings: Settings, queue: JobQueue, reporter: Reporter = QUIET) -> Recovered:
    """Restores the newest job of the manifest's name in its output, and wakes workers.

    `reporter` counts the images of the job. Raises ImagemillError, and then the job is not there: JobError
    when nothing is lost, when a job writes to the output, and when the manifest or a file that it names is
    not as it was submitted.
    """
    queue.check()
    prepared, ledger = prepare(file, settings), queue.ledger
    output, name = prepared.output, prepared.manifest.name
    job_id = f"{name}-{next_job_number(output, name) - 1}"
    prepared, kept = _as_submitted(prepared, file, job_id)
    asked = SubmittedManifest(prepared.pinned, kept.narrowed)
    _refuse_changes(file, job_id, kept.changes(asked, prepared.folder))
    _refuse_unless_lost(job_id, output, ledger)
    output.prepare()  # what a bucket has on this machine: its job may have begun on another one
    with (
        locked(output, patience=0),
        write_errors(output),
        writing(output, queue, name, reporter) as held,
    ):
        keep_inputs(prepared)
        output.close_attempts(said_wait(output, reporter))
        found, number, waiting = output.shards(), output.next_shard(), 0
        reading = Reading(json_columns=_json_columns(prepared))
        rebuild = _Rebuild(prepared, job_id, ledger)
        lacking = rebuild.lacking(prepared.entries(None, reading, Repeats()))
        for part in parts(lacking, (), prepared.shard_size()):
            if part.entries:
                paths = prepared.referenced([entry for _, entry in part.entries])
                rebuild.staging.add(number + waiting, part.entries, paths)
                waiting += 1
                reporter.count(rebuild.images)
        keep_inputs(prepared, reporter)  # those of the lines, which are known now
        files = file_hashes(prepared, reading)
        _refuse_changes(file, job_id, kept.changed_files(files, prepared.folder))
        if rebuild.settled:
            images = counted(len(rebuild.settled), "image")
            raise JobError(
                f"{output.label}: holds {images} of {job_id} that {file} does not ask for: did another "
                "program put them there, or another version of imagemill submit them? "
                f"`imagemill submit {file}` renders what the output lacks as a new job"
            )
        if output.shards() != found:
            raise JobError(f"{output.label}: a worker is still writing there: run the same command again")
        output.settle_names(names_to_begin(prepared.manifest.layout, number + waiting))
        spec, recovery = job_spec(prepared), rebuild.recovery(number, waiting)
        ledger.recover(job_id, spec, digest(prepared, spec, files), recovery)
        held.keep()
    queue.wake_for(max(1, waiting))
    done, failed = Bits(recovery.done).count(), len(recovery.failures)
    return Recovered(
        job_id=job_id,
        images=recovery.total,
        done=done,
        failed=failed,
        flagged=Bits(recovery.flagged).count(),
        left=recovery.total - done - failed,
        held=recovery.held,
        output=output.label,
        reason=ledger.status(job_id).reason,
        skipped=reading.skipped,
        skipped_rows=tuple(reading.skipped_rows),
    )


class _Rebuild:
    """Gives each image of a job, in the manifest's order, its index and its place in the ledger.

    Stages each shard as soon as it is full.
    """

    def __init__(self, prepared: Prepared, job_id: str, ledger: Ledger) -> None:
        self.settled, self._others = _settled(prepared.output, job_id)
        """Images of the job that are in the output and not asked for yet, by image_id."""
        self.images = 0
        self._prepared = prepared
        self.staging = Staging(ledger, base_request(prepared.manifest, prepared.model))
        self._sizes = Counter(one.shard for one in self.settled.values())
        self._committed: dict[int, list[tuple[int, Entry]]] = {}
        self._held, self._done, self._flagged = 0, Bits(), Bits()
        self._failures: dict[int, dict[str, Any]] = {}

    def lacking(self, entries: Iterable[Identified]) -> Iterator[tuple[int, Entry]]:
        """Yields the entries that are to be rendered, by index; takes in the others on the way."""
        for index, keyed in enumerate(entries):
            if type(keyed) is EqualLine:
                continue  # the finishing adds it, as the submission noted
            image_id, entry = keyed
            if image_id in self._others:
                self._held += 1
                continue
            self.images += 1
            settled = self.settled.pop(image_id, None)
            if settled is None:
                yield index, entry
            else:
                self._take_in(index, entry, settled)

    def _take_in(self, index: int, entry: Entry, settled: _Settled) -> None:
        """Takes in an image that is done or failed.

        A committed shard is stored under its own number, as it was before: `retry` reads it.
        """
        failure, shard = settled.failure, self._committed.setdefault(settled.shard, [])
        if failure is None:
            self._done.turn(index)
        else:
            self._failures[index] = failure.in_ledger()
        if settled.flagged:
            self._flagged.turn(index)
        shard.append((index, entry))
        if len(shard) == self._sizes[settled.shard]:
            entries = self._committed.pop(settled.shard)
            paths = self._prepared.referenced([entry for _, entry in entries])
            self.staging.add(settled.shard, entries, paths)

    def recovery(self, first_waiting: int, waiting: int) -> Recovery:
        """What was taken in, once all entries were."""
        return Recovery(
            staged=self.staging.staged(first_waiting, waiting),
            total=self.images,
            held=self._held,
            done=bytes(self._done),
            flagged=bytes(self._flagged),
            failures=failures_as_json(self._failures),
        )


def _settled(output: Output, job_id: str) -> tuple[dict[str, _Settled], set[str]]:
    """The job's images that its output knows, by image_id; the ids of images that only other jobs have."""
    settled, others, failures = dict[str, _Settled](), set[str](), dict[str, Failure]()
    for shard, stored in output.in_turn():
        done, doubted = _Settled(shard), _Settled(shard, flagged=True)
        for row in stored.held_records():
            if row.get("job_id") != job_id:
                others.add(row["image_id"])
            else:
                # The first is the one that was rendered; others are of lines that share its picture.
                settled.setdefault(row["image_id"], done if row.get("flagged") is None else doubted)
        for failure in stored.failures():
            if failure.job_id == job_id:
                failures[failure.image_id] = failure
    for image_id, failure in failures.items():
        if image_id not in settled:
            # If another job rendered it later, it is done: `retry` takes it so, too.
            settled[image_id] = _Settled(failure.shard, failure=None if image_id in others else failure)
    return settled, others - settled.keys()


def _json_columns(prepared: Prepared) -> Collection[str]:
    """The columns that are written as JSON text: as when it was submitted, since all of its rows count."""
    names = prepared.manifest.column_names()
    if not names:
        return ()
    there, reading = ColumnTypes(names), Reading()
    for _ in prepared.entries(None, reading):
        pass
    for _, stored in prepared.output.in_turn():
        for record in stored.records():
            there.add(record)
    try:
        return reading.columns.beside(there)
    except OutputError:
        return ()  # an earlier version began the job, and wrote every column as it is


def _as_submitted(prepared: Prepared, file: Path, job_id: str) -> tuple[Prepared, SubmittedManifest]:
    """The manifest, narrowed and with the model's defaults as for the job, and the copy kept of it then."""
    place = JobFiles(prepared.output, job_id).manifest
    try:
        kept = SubmittedManifest.parse(prepared.output.store.read(place, MAX_JSON))
    except FileNotFoundError:
        raise JobError(
            f"{prepared.output.label}: no submission of {file} is recorded there, nothing can be recovered: "
            f"`imagemill submit {file}` renders what the output lacks"
        ) from None
    except (OSError, ManifestError) as error:
        raise OutputError(
            f"{prepared.output.named(place)}: not a record of a submission ({str(error).splitlines()[0]}): "
            f"`imagemill submit {file}` renders what the output lacks as a new job"
        ) from None
    # What the manifest leaves open is as it was then, even if the model's defaults have changed.
    then = kept.manifest.settings.of_images(ModelDefaults())
    defaults = ModelDefaults(**{name: then[name] for name in asdict(prepared.model.defaults)})
    model = replace(prepared.model, defaults=defaults)
    return replace(prepared, model=model, limit=kept.limit, sample=kept.sample), kept


def _refuse_changes(file: Path, job_id: str, changes: Sequence[Change]) -> None:
    """Raises JobError naming the keys of the manifest, or the files, that differ."""
    if changes:
        names = some([change.name for change in changes])
        raise JobError(
            f"{file}: {names}: not as when {job_id} was submitted: put it back to "
            f"recover {job_id}, or `imagemill submit {file}` renders the difference as a new job"
        )


def _refuse_unless_lost(job_id: str, output: Output, ledger: Ledger) -> None:
    """Raises JobError early, before the prompts are read; `Ledger.recover` decides."""
    if job_id in ledger.job_ids():
        raise JobError(
            f"{job_id} is not lost, this Redis holds it: `imagemill status {job_id}` shows its state, "
            f"`imagemill retry {job_id}` sends back what it lacks once it is finished"
        )
    ledger.refuse_while_written(output.label, f"recover {job_id}")
