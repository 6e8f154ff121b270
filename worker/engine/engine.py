"""The one thread that touches the model: it schedules orders into slots, runs them, retires what is finished.

Orders of every shard that the process holds share forwards. The `RequestQueue` says which of them enter the
free slots, a `Renderer` runs the slots, and pictures leave by a `Delivery`; doubtful ones get a second look
first (`Doubts`).
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from jobs.errors import ImagemillError, ModelError, OutputError, RenderError
from jobs.failpoints import failpoint
from jobs.request import ImageRequest
from worker.engine.batch import Batch
from worker.engine.delivery import Delivery
from worker.engine.doubts import Doubts, doubt_of
from worker.engine.pulse import Pulse
from worker.engine.refusals import does_not_fit, keeps_mode, why_not
from worker.engine.renderer import (
    BrokenDevice,
    Bucket,
    OutOfMemory,
    Picture,
    Pipeline,
    Renderer,
    Stopped,
    first_line,
    rendered_by,
)
from worker.engine.request_queue import Answer, Finished, Order, RequestQueue
from worker.engine.slot_count import FEWEST
from worker.engine.slot_time import SlotTime, SlotUse, SlotUses
from worker.engine.timed_steps import timed_steps
from worker.error_frames import drop_frames
from worker.stage_seconds import SPENT

log = logging.getLogger(__name__)


class Engine:
    """Renders orders until it is stopped; `load` makes the renderer of a pipeline, one is kept."""

    def __init__(
        self,
        load: Callable[[Pipeline], Renderer],
        *,
        writers: int = 4,
        on_taken: Callable[[], None] = lambda: None,
        pulse: Pulse | None = None,
    ) -> None:
        """`on_taken` is called on the engine's thread when orders have entered the slots; it never blocks.

        `pulse` shows others whether the engine moves.
        """
        self._load, self._on_taken = load, on_taken
        self._queue = RequestQueue()
        self._stop = threading.Event()
        self._pulse = Pulse() if pulse is None else pulse
        self._delivery = Delivery(writers, self._must_stop)
        self._doubts = Doubts(self._delivery, self._must_stop)
        self._pipeline: Pipeline | None = None
        self._renderer: Renderer | None = None
        self._loading = self._has_loaded = False
        self._batch: Batch | None = None
        self._unwanted: set[Order] = set()
        """Withdrawn orders of the batch."""
        self._most_slots: dict[tuple[Pipeline, int, int], int] = {}
        self._steps = 0
        self._slot_uses = SlotUses()
        self._answering = 0.0
        """Seconds spent on questions, while a bucket's slots stood still."""
        self.load_seconds = 0.0
        """How long the loaded pipeline took to load."""
        self.device = ""
        """The kind of device that renders; empty until a pipeline has been loaded."""
        self.slots = 0
        """Those of the forwards that ran last; 0 before the first."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # For the other threads.

    def start(self) -> None:
        """Starts the engine's thread."""
        self._thread.start()

    def submit(self, orders: Sequence[Order]) -> None:
        """Puts orders in line."""
        self._queue.submit(orders)

    def ask(self, pipeline: Pipeline, question: Callable[[Renderer], Answer]) -> Future[Answer]:
        """Puts a question to a pipeline's renderer on the engine's thread, between two forwards.

        The future raises what the question raises, and ModelError when the pipeline cannot be loaded.
        """
        return self._queue.ask(pipeline, question)

    def withdraw(self, orders: Sequence[Order]) -> int:
        """Takes back the orders that are in no slot yet; returns how many. The rest are delivered.

        When memory runs out, none of those starts again.
        """
        self._unwanted |= set(self._entered()) & set(orders)
        return self._queue.withdraw(orders)

    def in_flight(self) -> list[Order]:
        """The orders that a death of this process would cost: in the slots, looked at again, or not written
        yet."""
        # In the order in which they pass: none is missed between two looks.
        slots = self._entered()
        postponed = [order for order, _ in self._doubts.postponed]
        return list(dict.fromkeys([*slots, *postponed, *self._delivery.unwritten()]))

    def _entered(self) -> list[Order]:
        batch = self._batch
        return [] if batch is None else [*batch.in_flight]

    def fitting(self, bucket: Bucket) -> Bucket:
        """The bucket with only as many slots as were found to fit into the device's memory."""
        return replace(bucket, slots=min(bucket.slots, self._most_slots.get(bucket.kind, bucket.slots)))

    def take_slot_use(self, bucket: Bucket) -> SlotUse:
        """The time that pictures of a bucket's size took, of those finished since the last call."""
        return self._slot_uses.take(bucket)

    @property
    def images(self) -> int:
        """Pictures rendered since the engine was started."""
        return self._delivery.pictures

    def flush(self, timeout: float) -> None:
        """Waits until the writers have nothing left to write, at most `timeout` seconds."""
        self._delivery.flush(timeout)

    def stop(self) -> None:
        """Makes the engine leave its slots after the step it is in; what was in them is not delivered."""
        self._stop.set()
        self._queue.wake()

    @property
    def running(self) -> bool:
        """Whether the engine's thread runs."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Waits for the engine's thread to end, but not for a model to load."""
        while self.running and not self._loading:
            self._thread.join(0.1)

    def close(self) -> None:
        """Stops, and waits for the engine's thread and the writers to end, but not for a model to load."""
        self.stop()
        self.wait()
        self._delivery.close()

    # The engine's thread: pipeline, bucket, step.

    def _run(self) -> None:
        try:
            while (pipeline := self._queue.next_pipeline(self._pipeline, self._stop.is_set)) is not None:
                self._serve(pipeline)
        except Stopped:
            return
        except BaseException:
            # Without its engine the process would hold leases for nothing; its supervisor starts another.
            log.critical("the engine's thread died", exc_info=True)
            os._exit(70)

    def _serve(self, pipeline: Pipeline) -> None:
        """Answers the questions to a pipeline, renders one of its buckets, then what is to be alone."""
        renderer = self._loaded(pipeline)
        if renderer is None:
            return
        with self._pulse.doing("rendering", pipeline):
            self._answer(renderer, pipeline)
            if (bucket := self._queue.next_bucket(pipeline)) is not None:
                upcoming = partial(self._queue.upcoming, bucket)
                self._drain(renderer, Batch(bucket, partial(self._schedule, renderer), upcoming))
            while (order := self._queue.next_alone(pipeline)) is not None:
                self._render_by_itself(renderer, order)

    def _drain(self, renderer: Renderer, batch: Batch) -> None:
        """Renders a batch until nothing of it is left, postponed images last."""
        self._batch = batch
        self._render(renderer, batch)
        self._batch, self._unwanted = None, set()
        self._doubts.render_postponed(renderer)

    def _render(self, renderer: Renderer, batch: Batch) -> None:
        """Schedule, run, retire: a step of the renderer takes from the batch and gives what it finished."""
        bucket = self.fitting(batch.bucket)
        self._turn_away(batch, partial(why_not, renderer, bucket))
        if not keeps_mode(renderer, bucket):
            return
        self.slots = bucket.slots
        slot_time = SlotTime(renderer, bucket, self._clock)
        try:
            for finished in timed_steps(renderer.render(bucket, batch, self._must_stop), self._clock):
                failpoint("rendered")
                self._pulse.beat()
                self._steps += 1
                slot_time.share_out(batch.in_flight)
                for order, result in finished:
                    if isinstance(result, Picture):
                        self._slot_uses.add(bucket, slot_time.use(order))
                    self._retire(renderer, bucket, order, result)
                    batch.left(order)
        except (Stopped, BrokenDevice):
            raise
        except OutOfMemory as error:
            self._halve_slots(renderer, bucket, batch, error)
        except Exception as error:
            if not batch.in_flight:
                cannot = f"{bucket.pipeline.model} cannot render here: {first_line(error)}"
                self._refuse(bucket.pipeline, ModelError(cannot))
                return
            drop_frames(error)  # the forward that failed is not held while its images are rendered again
            self._doubts.isolate(renderer, batch, error, partial(self._render, renderer))

    def _turn_away(self, batch: Batch, refusal: Callable[[ImageRequest], ModelError | None]) -> None:
        """Ends the orders of a batch, and those in line for it, that the renderer cannot render."""
        waiting = self._queue.remove(batch.bucket, lambda order: refusal(order.request) is not None)
        for order in [*batch.in_flight, *waiting]:
            if (error := refusal(order.request)) is not None:
                self._delivery.hand_over(order, error)
                if order in batch.in_flight:
                    batch.left(order)

    def _schedule(self, renderer: Renderer, batch: Batch, free_slots: int) -> list[Order]:
        """The orders that enter a batch's free slots now; before them, questions are answered."""
        self._answer(renderer, batch.bucket.pipeline)
        if self._doubts.postponed:  # they wait for the slots' memory
            return []
        orders = self._queue.take(batch.bucket, free_slots, renderer, self._steps)
        batch.entered(orders)
        if orders:
            self._on_taken()
        return orders

    def _retire(
        self, renderer: Renderer, bucket: Bucket, order: Order, result: Picture | ImagemillError
    ) -> None:
        """Hands a picture to the writers; a doubtful one is rendered again before."""
        if isinstance(result, ImagemillError):
            # That a file cannot be read at present is no failure of the image.
            mine = result if isinstance(result, OutputError) else RenderError(str(result))
            self._delivery.hand_over(order, mine)
        elif (doubt := doubt_of(result)) is not None:
            self._doubts.render_alone(renderer, order, doubt)
        else:
            by = rendered_by(renderer, bucket, order.request)
            self._delivery.hand_over(order, Finished(result, by, None))

    def _render_by_itself(self, renderer: Renderer, order: Order) -> None:
        """Renders an order while all other slots are empty; its bytes are the same as among others."""
        # A death is charged to the image that is alone. So the others are written before it starts, and it is
        # written before others enter the slots.
        self._delivery.wait(at_most=0)
        try:
            with self._pulse.resting():  # Redis may be away
                order.begin_alone()
        except ImagemillError as error:
            self._delivery.hand_over(order, error)
            return
        self._drain(renderer, Batch.of(renderer, order.bucket, [order]))
        self._delivery.wait(at_most=0)

    # What else happens on it.

    def _loaded(self, pipeline: Pipeline) -> Renderer | None:
        """The pipeline's renderer, loaded unless it is; None: it cannot be loaded, and is refused."""
        if self._renderer is not None and pipeline == self._pipeline:
            return self._renderer
        # The old one goes first, and nothing else may hold it: two may not fit on the device.
        self._renderer = self._pipeline = None
        if self._has_loaded:  # or has tried, which leaves parts behind
            gc.collect()
        began = time.monotonic()
        self._loading = self._has_loaded = True
        try:
            with SPENT.timed("load"), self._pulse.doing("loading", pipeline):
                self._renderer = self._load(pipeline)
        except Exception as error:
            if self._stop.is_set():  # no order is left to answer, and no writer
                raise Stopped from error
            # A device without memory, a broken file or anything else: this worker cannot render the model.
            unforeseen = f"{pipeline.model} cannot be loaded: {first_line(error)}"
            reason = str(error) if isinstance(error, ImagemillError) else unforeseen
            self._refuse(pipeline, ModelError(reason))
            return None
        finally:
            self._loading = False
        self._pipeline, self.device = pipeline, self._renderer.device
        self.load_seconds = time.monotonic() - began
        log.info("loaded %s in %.1f s", pipeline.model, self.load_seconds)
        return self._renderer

    def _answer(self, renderer: Renderer, pipeline: Pipeline) -> None:
        began = time.monotonic()
        for question in self._queue.questions(pipeline):
            if not question.answer.set_running_or_notify_cancel():
                continue
            try:
                question.answer.set_result(question.ask(renderer))
            except OutOfMemory as error:
                question.answer.set_exception(does_not_fit(pipeline, error))
            except BrokenDevice:
                raise
            except Exception as error:
                drop_frames(error)  # the one that asked may keep it
                question.answer.set_exception(error)
            self._pulse.beat()
        self._answering += time.monotonic() - began

    def _halve_slots(self, renderer: Renderer, bucket: Bucket, batch: Batch, error: OutOfMemory) -> None:
        """Puts back in line what was in flight, to be rendered in half of the bucket's slots."""
        drop_frames(error)  # what failed is held by its own traceback, on a device that has no room
        gc.collect()
        self._queue.submit([order for order in batch.in_flight if order not in self._unwanted])
        if bucket.slots <= FEWEST or renderer.batching == "alone":
            self._refuse(bucket.pipeline, does_not_fit(bucket.pipeline, error))
            return
        most = max(FEWEST, bucket.slots // 2)
        self._most_slots[bucket.kind] = most
        log.warning("out of memory (%s): going on with %d slots", first_line(error), most)

    def _refuse(self, pipeline: Pipeline, error: ModelError) -> None:
        """Ends all that waits for a pipeline which this worker cannot render."""
        orders, questions = self._queue.empty(pipeline)
        for question in questions:
            if question.answer.set_running_or_notify_cancel():
                question.answer.set_exception(error)
        for order in orders:
            self._delivery.hand_over(order, error)

    def _must_stop(self) -> bool:
        """Whether to leave the slots; a renderer asks between two forwards, and for writers at each look."""
        self._pulse.beat()
        return self._stop.is_set()

    def _clock(self) -> float:
        """Seconds, without those in which a bucket's slots stood still for something else."""
        return time.monotonic() - self._answering - self._doubts.seconds
