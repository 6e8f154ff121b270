"""The one thread that touches the model: takes orders, fills micro-batches, hands finished pictures on.

Orders of every shard that the process holds wait in one place, so a micro-batch may mix shards. Encoding
and writing happen in a small pool of writers, so they overlap with sampling; at most `2 x rows` finished
pictures wait there, then the engine waits for them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jobs.errors import ImagemillError, ModelError, RenderError
from jobs.request import ImageRequest
from worker.encode import is_flat
from worker.logs import bound
from worker.renderer import (
    BatchKey,
    BrokenDevice,
    OutOfMemory,
    Picture,
    RenderedBy,
    Renderer,
    Stopped,
    batch_key,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What has to be loaded; orders of different pipelines never share a micro-batch."""

    model: str
    revision: str
    precision: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A picture, what rendered it, and why it is doubted (None: it is not)."""

    picture: Picture
    rendered_by: RenderedBy
    flagged: str | None


Outcome = Finished | ImagemillError
"""An order ends in a picture; in RenderError, its own failure; or in ModelError, that of its pipeline."""


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """One image to render; `deliver` is called once, on a writer's thread, and does not raise."""

    pipeline: Pipeline
    request: ImageRequest
    init_latents: np.ndarray | None
    deliver: Callable[[Outcome], None]
    context: Mapping[str, Any] = field(default_factory=dict)
    """What log lines about it say: job, shard, image_id."""


class Engine:
    """Renders orders until it is stopped; `load` makes the renderer of a pipeline, one is kept."""

    def __init__(self, load: Callable[[Pipeline], Renderer], *, rows: int, writers: int = 4) -> None:
        self._load = load
        self._waiting: OrderedDict[tuple[Pipeline, BatchKey], deque[Order]] = OrderedDict()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._renderer: Renderer | None = None
        self._pipeline: Pipeline | None = None
        self._loading = False
        self._writers = ThreadPoolExecutor(writers, thread_name_prefix="writer")
        self._written = threading.Condition()
        self._unwritten, self._most_unwritten = 0, 2 * rows
        self.load_seconds = 0.0
        """How long the loaded pipeline took to load."""
        self.images = 0
        """Pictures rendered since it was started."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the engine's thread."""
        self._thread.start()

    def submit(self, orders: Sequence[Order]) -> None:
        """Puts orders in line."""
        with self._changed:
            for order in orders:
                key = (order.pipeline, batch_key(order.request))
                self._waiting.setdefault(key, deque()).append(order)
            self._changed.notify()

    def withdraw(self, orders: Sequence[Order]) -> int:
        """Takes back the orders that no micro-batch holds yet; returns how many. The rest are delivered."""
        unwanted = set(map(id, orders))
        withdrawn = 0
        with self._changed:
            for key, queue in list(self._waiting.items()):
                kept = deque(order for order in queue if id(order) not in unwanted)
                withdrawn += len(queue) - len(kept)
                if kept:
                    self._waiting[key] = kept
                else:
                    del self._waiting[key]
        return withdrawn

    def flush(self, timeout: float) -> None:
        """Waits until the writers have nothing left to write, at most `timeout` seconds."""
        with self._written:
            self._written.wait_for(lambda: self._unwritten == 0, timeout)

    def stop(self) -> None:
        """Makes the engine leave its micro-batch after the step it is in; what was in it is not delivered."""
        self._stop.set()
        with self._changed:
            self._changed.notify()

    def wait(self) -> None:
        """Waits for the engine's thread to end, but not for a model to load."""
        while self._thread.is_alive() and not self._loading:
            self._thread.join(0.1)

    def close(self) -> None:
        """Stops, and waits for the engine's thread and the writers to end, but not for a model to load."""
        self.stop()
        self.wait()
        self._writers.shutdown(wait=True)

    # Schedule, run, retire.

    def _run(self) -> None:
        try:
            while (pipeline := self._next_pipeline()) is not None:
                try:
                    renderer = self._load_once(pipeline)
                except Exception as error:
                    # A device without memory, a broken file: whatever it is, this worker cannot render it.
                    unforeseen = f"{pipeline.model} cannot be loaded: {_say(error)}"
                    told = str(error) if isinstance(error, ImagemillError) else unforeseen
                    self._refuse(pipeline, ModelError(told))
                else:
                    self._render_or_refuse(renderer, pipeline)
        except Stopped:
            return
        except BaseException:
            # Without its engine the process would hold leases for nothing; its supervisor starts another.
            log.critical("the engine's thread died", exc_info=True)
            os._exit(70)

    def _render_or_refuse(self, renderer: Renderer, pipeline: Pipeline) -> None:
        try:
            self._render(renderer, self._next_batch(pipeline, renderer))
        except OutOfMemory as error:
            self._refuse(pipeline, ModelError(f"{pipeline.model} does not fit this device: {_say(error)}"))

    def _put_back(self, orders: Sequence[Order]) -> None:
        """Puts the orders of a micro-batch that was too large back, first in line."""
        with self._changed:
            key = (orders[0].pipeline, batch_key(orders[0].request))
            self._waiting.setdefault(key, deque()).extendleft(reversed(orders))

    def _next_pipeline(self) -> Pipeline | None:
        """Waits for orders; the loaded pipeline while it has some, else that of the oldest. None: stopped."""
        with self._changed:
            while not self._waiting and not self._stop.is_set():
                self._changed.wait()
            if self._stop.is_set():
                return None
            pipelines = [pipeline for pipeline, _group in self._waiting]
            return self._pipeline if self._pipeline in pipelines else pipelines[0]

    def _load_once(self, pipeline: Pipeline) -> Renderer:
        if self._renderer is None or pipeline != self._pipeline:
            # The old one goes first: two may not fit the device.
            self._renderer = self._pipeline = None
            began = time.monotonic()
            self._loading = True
            try:
                self._renderer = self._load(pipeline)
            finally:
                self._loading = False
            self._pipeline = pipeline
            self.load_seconds = time.monotonic() - began
            log.info("loaded %s in %.1f s", pipeline.model, self.load_seconds)
        return self._renderer

    def _next_batch(self, pipeline: Pipeline, renderer: Renderer) -> list[Order]:
        """The next micro-batch of a pipeline: a full one if there is one, else of the oldest orders."""
        with self._changed:
            queues = {key: queue for key, queue in self._waiting.items() if key[0] == pipeline}
            if not queues:  # withdrawn meanwhile
                return []
            sizes = {key: renderer.batch_size(queue[0].request) for key, queue in queues.items()}
            key = next((key for key, queue in queues.items() if len(queue) >= sizes[key]), next(iter(queues)))
            orders = [queues[key].popleft() for _ in range(min(sizes[key], len(queues[key])))]
            if not queues[key]:
                del self._waiting[key]
            return orders

    def _render(self, renderer: Renderer, orders: Sequence[Order]) -> None:
        """Renders a micro-batch; when it raises, its halves, down to the one image that is to blame."""
        if not orders:
            return
        try:
            pictures = renderer.render(
                [order.request for order in orders],
                [order.init_latents for order in orders],
                self._stop.is_set,
            )
        except (Stopped, BrokenDevice):
            raise
        except OutOfMemory as error:
            self._put_back(orders)
            if not renderer.halve_rows():
                raise
            log.warning("out of memory (%s): going on with %d rows", _say(error), renderer.rendered_by.rows)
        except Exception as error:
            if len(orders) > 1:
                log.warning("a micro-batch of %d raised %s: rendering its halves", len(orders), _say(error))
                middle = len(orders) // 2
                self._render(renderer, orders[:middle])
                self._render(renderer, orders[middle:])
            else:
                self._render_alone(renderer, orders[0], f"raised {_say(error)}")
        else:
            self._look_at(renderer, orders, pictures)

    def _look_at(self, renderer: Renderer, orders: Sequence[Order], pictures: Sequence[Picture]) -> None:
        """Hands good pictures on and renders doubtful ones again."""
        for order, picture in zip(orders, pictures, strict=True):
            if not picture.finite:
                self._render_alone(renderer, order, "non-finite values")
            elif is_flat(picture.pixels):
                self._render_alone(renderer, order, "one flat colour")
            else:
                self._retire(order, Finished(picture, renderer.rendered_by, None))

    def _render_alone(self, renderer: Renderer, order: Order, doubt: str) -> None:
        """Renders a doubtful image once more, alone and in fp32: it is good, flagged or a failure then."""
        with bound(**order.context):
            log.warning("%s; once more, alone in fp32", doubt)
        try:
            picture = renderer.render_alone(order.request, order.init_latents, self._stop.is_set)
        except (Stopped, BrokenDevice):
            raise
        except Exception as error:
            self._retire(order, RenderError(f"raised {_say(error)}, alone in fp32 too"))
            return
        if not picture.finite:
            self._retire(order, RenderError("the model gave non-finite values, alone in fp32 too"))
            return
        flagged = "one flat colour" if is_flat(picture.pixels) else None
        rendered_by = replace(renderer.rendered_by, precision="fp32")
        self._retire(order, Finished(picture, rendered_by, flagged))

    def _refuse(self, pipeline: Pipeline, error: ModelError) -> None:
        """Ends every order of a pipeline that cannot be loaded."""
        with self._changed:
            keys = [key for key in self._waiting if key[0] == pipeline]
            orders = [order for key in keys for order in self._waiting.pop(key)]
        for order in orders:
            self._retire(order, error)

    def _retire(self, order: Order, outcome: Outcome) -> None:
        with self._written:
            while not self._written.wait_for(lambda: self._unwritten < self._most_unwritten, 0.2):
                if self._stop.is_set():
                    raise Stopped
            self._unwritten += 1
        self.images += isinstance(outcome, Finished)
        self._writers.submit(self._deliver, order, outcome)

    def _deliver(self, order: Order, outcome: Outcome) -> None:
        try:
            with bound(**order.context):
                order.deliver(outcome)
        finally:
            with self._written:
                self._unwritten -= 1
                self._written.notify_all()


def _say(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
