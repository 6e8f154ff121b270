"""The buckets of a shard's images: how many slots their forwards have is settled once for the whole job."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as StillWaiting
from functools import cached_property
from typing import TypeVar, cast, get_args

from jobs.adapters import Adapters
from jobs.errors import ImagemillError, ModelError
from jobs.ledger.job import JobSpec, SlotsKey
from jobs.models.further_models import FurtherRole
from jobs.output.output import Output
from jobs.pipelines.pipeline_task import pictures_of
from jobs.prompt_weights import missing_package
from jobs.request import ImageRequest
from jobs.settled_slots import keep_slots, settled_slots
from jobs.wording import shortened
from worker.engine.renderer import Bucket, FurtherModel, Pipeline, Renderer
from worker.lease.disk_space import WithSpace
from worker.lease.lease import Lease
from worker.shard.workplace import Workplace

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Buckets:
    """What the engine renders the images of one job in: by size, task, and what their model carries."""

    def __init__(
        self,
        lease: Lease,
        spec: JobSpec,
        workplace: Workplace,
        with_space: WithSpace,
    ) -> None:
        """with_space: makes a write to the output once there is space for it."""
        self._lease, self._spec, self._with_space = lease, spec, with_space
        self._engine, self._settings, self._known = workplace.engine, workplace.settings, workplace.known
        self._output = Output.at(spec.output)
        self._buckets: dict[tuple[int, int, str, Adapters], Bucket] = {}
        """By height, width, the renderer's task, and what the model carries."""
        self._tasks = {"": ""}
        """What the renderer calls the tasks of requests, by our keys: of text alone all call it alike."""
        self._keys: dict[Bucket, SlotsKey] = {}

    @cached_property
    def _pipeline(self) -> Pipeline:
        """What has to be loaded. Raises ModelError for a model beside it that this version does not know."""
        spec = self._spec
        return Pipeline(spec.model, spec.revision, spec.precision, tuple(map(_further, spec.further_models)))

    def of(self, request: ImageRequest) -> Bucket:
        """The bucket of an image; what is not settled yet is measured, which loads the model.

        Raises ModelError when the model cannot be loaded or the request's syntax needs a package that is not
        installed, OtherHardware when the job was begun on another
        kind of device, OutputError when the output's slots cannot be read or written, and what `Lease.check`
        raises.
        """
        if (missing := missing_package(request.syntax)) is not None:
            raise ModelError(missing)
        size, task, adapters = (request.height, request.width), self._task(request), request.adapters
        kind = (*size, task, adapters)
        if kind not in self._buckets:
            key = self._key(*size)
            slots = self._slots(key)
            bucket = Bucket(self._pipeline, *size, slots, self._spec.mode, task, adapters)
            self._buckets[kind] = bucket
            self._keys[bucket] = key
        return self._buckets[kind]

    def report_caps(self) -> None:
        """Reports to the ledger which numbers of slots did not fit into the device's memory; raises nothing.

        A worker that this does not reach finds out by itself.
        """
        for bucket, key in self._keys.items():
            fitting = self._engine.fitting(bucket)
            if fitting != bucket:
                try:
                    self._lease.ledger.cap_slots(self._lease.claim, key, fitting.slots)
                except ImagemillError as error:
                    log.warning("could not report that only %d slots fit: %s", fitting.slots, error)

    def report_work(self) -> None:
        """Reports to the ledger how fast pictures of each size were rendered here; raises nothing."""
        for bucket, key in self._keys.items():
            use = self._engine.take_slot_use(bucket)
            if use.row_evaluations:
                try:
                    self._lease.ledger.add_work(key, use.row_evaluations, use.seconds)
                except ImagemillError as error:
                    log.warning("could not report how fast pictures are rendered: %s", error)

    def _task(self, request: ImageRequest) -> str:
        """The renderer's task of an image, asked once for all that have the same pictures."""
        key = "+".join(pictures_of(request))
        if key not in self._tasks:
            self._tasks[key] = self._ask(lambda renderer: renderer.task(request))
        return self._tasks[key]

    def _key(self, height: int, width: int) -> SlotsKey:
        if self._pipeline not in self._known.kinds:
            self._known.kinds[self._pipeline] = self._ask(
                lambda renderer: (renderer.device, renderer.precision)
            )
        return SlotsKey(*self._known.kinds[self._pipeline], self._spec.revision, height, width)

    def _slots(self, key: SlotsKey) -> int:
        """What the job has settled; else what was asked for, else what the output was begun with, else what
        is measured now."""
        own, begun = self._settings.batch_size, self._with_space(lambda: settled_slots(self._output, key))
        proposed = begun if own is None else own
        slots = self._settle(key, slots=0 if proposed is None else proposed, measured=proposed is None)
        if slots == 0:
            measured = self._ask(lambda renderer: renderer.measure_slots(key.height, key.width))
            log.info("%d slots suit %dx%d pictures here", measured, key.width, key.height)
            slots = self._settle(key, slots=measured, measured=True)
        if begun is None:
            self._with_space(lambda: keep_slots(self._output, key, slots))
        if own is None or self._settings.mixed_hardware:
            return slots if own is None else own
        if own != slots:
            warning = (
                "--batch-size %d is not taken: %s has %d slots already, and other slots give other bytes"
            )
            self._warn_once(key, warning, own, self._spec.name, slots)
        elif begun not in (None, own):
            warning = "--batch-size %d is taken, though %s was begun with %d slots: their bytes differ"
            self._warn_once(key, warning, own, self._output.label, begun)
        return slots

    def _warn_once(self, key: SlotsKey, text: str, *figures: object) -> None:
        """Warns at the first of a job's shards."""
        if (warning := (self._lease.claim.incarnation, key)) not in self._known.warned:
            self._known.warned.add(warning)
            log.warning(text, *figures)

    def _settle(self, key: SlotsKey, *, slots: int, measured: bool) -> int:
        ledger, mixed = self._lease.ledger, self._settings.mixed_hardware
        return self._lease.patiently(
            lambda: ledger.settle_slots(self._lease.claim, key, slots=slots, measured=measured, mixed=mixed)
        )

    def _ask(self, question: Callable[[Renderer], Answer]) -> Answer:
        answer = self._engine.ask(self._pipeline, question)
        try:
            while True:
                try:
                    return answer.result(timeout=0.1)
                except StillWaiting:
                    self._lease.check()
        finally:
            answer.cancel()  # no model is loaded for a caller that has left


def _further(named: Sequence[str]) -> FurtherModel:
    """A model that a job has beside its own. Raises ModelError for one of another version's jobs."""
    roles = get_args(FurtherRole)
    match [*named]:
        case [role, str(model), str(revision)] if role in roles:
            return FurtherModel(cast("FurtherRole", role), model, revision)
    told = shortened(json.dumps([*named], ensure_ascii=False))
    raise ModelError(
        f"further_models: {told}: this imagemill loads {', '.join(roles)} beside a model, and nothing else: "
        "start workers of the version that submitted the job"
    )
