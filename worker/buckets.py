"""The buckets of a shard's images: how many rows their forwards have is settled once for the whole job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import TimeoutError as StillWaiting
from typing import TypeVar

from jobs.job import JobSpec, RowsKey
from jobs.request import ImageRequest
from jobs.settings import Settings
from worker.engine import Engine
from worker.lease import Lease
from worker.renderer import Bucket, Pipeline, Renderer

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Buckets:
    """What the engine renders the images of one job in, by their size."""

    def __init__(self, lease: Lease, spec: JobSpec, engine: Engine, settings: Settings) -> None:
        self._lease, self._spec, self._engine, self._settings = lease, spec, engine, settings
        self._pipeline = Pipeline(spec.model, spec.revision, spec.precision)
        self._buckets: dict[tuple[int, int], Bucket] = {}
        self._keys: dict[Bucket, RowsKey] = {}

    def of(self, request: ImageRequest) -> Bucket:
        """The bucket of an image; what is not settled yet is measured, which loads the model.

        Raises ModelError when the model cannot be loaded, OtherHardware when the job was begun on another
        kind of device, and what `Lease.check` raises.
        """
        size = (request.height, request.width)
        if size not in self._buckets:
            key = self._key(*size)
            bucket = Bucket(self._pipeline, *size, rows=self._rows(key), mode=self._spec.mode)
            self._buckets[size] = bucket
            self._keys[bucket] = key
        return self._buckets[size]

    def tell_caps(self) -> None:
        """Tells the ledger which numbers of rows the device's memory had no room for."""
        for bucket, key in self._keys.items():
            fitting = self._engine.fitting(bucket)
            if fitting != bucket:
                self._lease.patiently(
                    lambda key=key, rows=fitting.rows: self._lease.ledger.cap_rows(  # type: ignore[misc]
                        self._lease.claim, key, rows
                    )
                )

    def _key(self, height: int, width: int) -> RowsKey:
        device, precision = self._ask(lambda renderer: (renderer.device, renderer.precision))
        return RowsKey(device, precision, self._spec.revision, height, width)

    def _rows(self, key: RowsKey) -> int:
        own = self._settings.rows
        rows = self._settle(key, rows=0 if own is None else own, measured=own is None)
        if own is not None:
            return own
        if rows == 0:
            measured = self._ask(lambda renderer: renderer.measure_rows(key.height, key.width))
            log.info("%d rows suit %dx%d pictures here", measured, key.width, key.height)
            rows = self._settle(key, rows=measured, measured=True)
        return rows

    def _settle(self, key: RowsKey, *, rows: int, measured: bool) -> int:
        ledger, mixed = self._lease.ledger, self._settings.mixed_hardware
        return self._lease.patiently(
            lambda: ledger.settle_rows(self._lease.claim, key, rows=rows, measured=measured, mixed=mixed)
        )

    def _ask(self, question: Callable[[Renderer], Answer]) -> Answer:
        answer = self._engine.ask(self._pipeline, question)
        while True:
            try:
                return answer.result(timeout=0.1)
            except StillWaiting:
                self._lease.check()
