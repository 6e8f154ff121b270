"""The one thread that touches the model: schedules orders into slots, runs them, hands on what comes of them.

Orders of every shard that the process holds share forwards. Encoding and writing happen in a small pool of
writers, so they overlap with sampling; at most twice as many finished pictures as there are slots wait there,
then the engine waits for them.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from jobs.errors import ImagemillError, ModelError, RenderError
from jobs.failpoints import failpoint
from jobs.schedulers import row_evaluations
from worker.encode import is_flat
from worker.engine.renderer import (
    BrokenDevice,
    Bucket,
    OutOfMemory,
    Picture,
    Pipeline,
    RenderedBy,
    Renderer,
    Stopped,
    slots_alone,
)
from worker.engine.request_queue import Answer, Finished, Order, Outcome, RequestQueue
from worker.engine.slot_count import FEWEST
from worker.engine.slot_time import SlotTime
from worker.logs import bound

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """What pictures took of the slots they shared."""

    row_evaluations: int
    seconds: float
    """Of the whole engine, all slots full."""


class Engine:
    """Renders orders until it is stopped; `load` makes the renderer of a pipeline, one is kept."""

    def __init__(
        self,
        load: Callable[[Pipeline], Renderer],
        *,
        writers: int = 4,
        on_taken: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_taken` is called on the engine's thread when orders have entered the slots; it never blocks."""
        self._load, self._on_taken = load, on_taken
        self._orders = RequestQueue()
        self._stop = threading.Event()
        self._renderer: Renderer | None = None
        self._pipeline: Pipeline | None = None
        self._loading = False
        self._in_slots: list[Order] = []
        self._unwanted: set[Order] = set()
        self._postponed: list[tuple[Order, str]] = []
        self._most_slots: dict[tuple[Pipeline, int, int], int] = {}
        self._writers = ThreadPoolExecutor(writers, thread_name_prefix="writer")
        self._written = threading.Condition()
        self._unwritten: set[Order] = set()
        self._steps = 0
        self._elsewhere = 0.0
        """Seconds spent on questions and on images alone, while a bucket's slots stood still."""
        self._work: dict[tuple[Pipeline, int, int], Work] = {}
        self._working = threading.Lock()
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
        self._orders.submit(orders)

    def ask(self, pipeline: Pipeline, question: Callable[[Renderer], Answer]) -> Future[Answer]:
        """Puts a question to a pipeline's renderer on the engine's thread, between two forwards.

        The future raises what the question raises, and ModelError when the pipeline cannot be loaded.
        """
        return self._orders.ask(pipeline, question)

    def withdraw(self, orders: Sequence[Order]) -> int:
        """Takes back the orders that are in no slot yet; returns how many. The rest are delivered.

        Of those, none is begun anew when memory runs out.
        """
        self._unwanted |= set(self._in_slots) & set(orders)
        return self._orders.withdraw(orders)

    def in_flight(self) -> list[Order]:
        """The orders that a death of this process would cost: in the slots, looked at again, or not written
        yet."""
        with self._written:
            # In the order in which they pass: none is missed between two looks.
            slots = [*self._in_slots]
            postponed = [order for order, _ in self._postponed]
            return list(dict.fromkeys([*slots, *postponed, *self._unwritten]))

    def fitting(self, bucket: Bucket) -> Bucket:
        """The bucket with as many of its slots as the device's memory was seen to have room for."""
        most = self._most_slots.get((bucket.pipeline, bucket.height, bucket.width), bucket.slots)
        return replace(bucket, slots=min(bucket.slots, most))

    def take_work(self, bucket: Bucket) -> Work:
        """What was done for the pictures of a bucket's size that were finished since this was asked last."""
        with self._working:
            return self._work.pop((bucket.pipeline, bucket.height, bucket.width), Work(0, 0.0))

    def flush(self, timeout: float) -> None:
        """Waits until the writers have nothing left to write, at most `timeout` seconds."""
        with self._written:
            self._written.wait_for(lambda: not self._unwritten, timeout)

    def stop(self) -> None:
        """Makes the engine leave its slots after the step it is in; what was in them is not delivered."""
        self._stop.set()
        self._orders.wake()

    def wait(self) -> None:
        """Waits for the engine's thread to end, but not for a model to load."""
        while self._thread.is_alive() and not self._loading:
            self._thread.join(0.1)

    def close(self) -> None:
        """Stops, and waits for the engine's thread and the writers to end, but not for a model to load."""
        self.stop()
        self.wait()
        self._writers.shutdown(wait=True)

    # Schedule.

    def _run(self) -> None:
        try:
            while (pipeline := self._orders.next_pipeline(self._pipeline, self._stop.is_set)) is not None:
                if self._has_loaded(pipeline):
                    self._serve(pipeline)
        except Stopped:
            return
        except BaseException:
            # Without its engine the process would hold leases for nothing; its supervisor starts another.
            log.critical("the engine's thread died", exc_info=True)
            os._exit(70)

    def _has_loaded(self, pipeline: Pipeline) -> bool:
        """Loads a pipeline; one that cannot be loaded is refused."""
        if self._renderer is not None and pipeline == self._pipeline:
            return True
        # The old one goes first, and nobody else holds it: two may not fit the device.
        self._renderer = self._pipeline = None
        gc.collect()
        began = time.monotonic()
        self._loading = True
        try:
            self._renderer = self._load(pipeline)
        except Exception as error:
            if self._stop.is_set():  # nobody is left to tell, nor to write
                raise Stopped from error
            # A device without memory, a broken file: whatever it is, this worker cannot render it.
            unforeseen = f"{pipeline.model} cannot be loaded: {_say(error)}"
            told = str(error) if isinstance(error, ImagemillError) else unforeseen
            self._refuse(pipeline, ModelError(told))
            return False
        finally:
            self._loading = False
        self._pipeline = pipeline
        self.load_seconds = time.monotonic() - began
        log.info("loaded %s in %.1f s", pipeline.model, self.load_seconds)
        return True

    def _serve(self, pipeline: Pipeline) -> None:
        """Answers the questions to the loaded pipeline, drains one of its buckets, then what runs alone."""
        assert self._renderer is not None
        self._answer(self._renderer, pipeline)
        if (bucket := self._orders.next_bucket(pipeline)) is not None:
            self._render(self._renderer, bucket, self._line(self._renderer, bucket))
            self._in_slots, self._unwanted = [], set()
        self._render_postponed(self._renderer)
        while (suspect := self._orders.next_alone(pipeline)) is not None:
            self._render_by_itself(self._renderer, suspect)
            self._render_postponed(self._renderer)

    def _answer(self, renderer: Renderer, pipeline: Pipeline) -> None:
        began = time.monotonic()
        for question in self._orders.questions(pipeline):
            if not question.answer.set_running_or_notify_cancel():
                continue
            try:
                question.answer.set_result(question.ask(renderer))
            except OutOfMemory as error:
                told = f"{pipeline.model} does not fit this device: {_say(error)}"
                question.answer.set_exception(ModelError(told))
            except BrokenDevice:
                raise
            except Exception as error:
                question.answer.set_exception(error)
        self._elsewhere += time.monotonic() - began

    def _line(self, renderer: Renderer, bucket: Bucket) -> _Source:
        """The orders of a bucket as they come; between forwards, questions are answered too."""
        outstanding = self._in_slots = []

        def take(free_slots: int) -> list[Order]:
            self._answer(renderer, bucket.pipeline)
            if self._postponed:  # they wait for the slots' memory
                return []
            orders = self._orders.take(bucket, free_slots, renderer.forwards, self._steps)
            outstanding.extend(orders)
            if orders:
                self._on_taken()
            return orders

        return _Source(take, lambda count: self._orders.upcoming(bucket, count), outstanding, open=True)

    # Run.

    def _render(self, renderer: Renderer, bucket: Bucket, source: _Source) -> None:
        """Renders what a bucket has; what raises is told from its neighbours."""
        fitting = self.fitting(bucket)
        slot_time = SlotTime(fitting, lambda: time.monotonic() - self._elsewhere)
        try:
            for outcomes in renderer.render(fitting, source, self._stop.is_set):
                failpoint("rendered")
                self._steps += 1
                slot_time.share_out(source.outstanding)
                for order, result in outcomes:
                    if isinstance(result, Picture):
                        self._count(order, slot_time.seconds(order))
                    self._look_at(renderer, fitting, order, result)
                    source.outstanding.remove(order)
        except (Stopped, BrokenDevice):
            raise
        except OutOfMemory as error:
            self._orders.submit([order for order in source.outstanding if order not in self._unwanted])
            if fitting.slots <= FEWEST:
                fits_not = f"{bucket.pipeline.model} does not fit this device: {_say(error)}"
                self._refuse(bucket.pipeline, ModelError(fits_not))
                return
            most = max(FEWEST, fitting.slots // 2)
            self._most_slots[bucket.pipeline, bucket.height, bucket.width] = most
            log.warning("out of memory (%s): going on with %d slots", _say(error), most)
        except Exception as error:
            self._isolate(renderer, bucket, source, error)

    def _render_by_itself(self, renderer: Renderer, order: Order) -> None:
        """Renders an order in slots that are empty otherwise; its bytes are those it has among others."""
        assert order.alone is not None
        # A death is charged to the one that is alone: what is not written yet has to be before, and it itself
        # before others enter the slots.
        self._wait_for_writers(0)
        try:
            order.alone()
        except ImagemillError as error:
            self._retire(order, error)
            return
        source = _only([order])
        self._in_slots = source.outstanding
        self._render(renderer, order.bucket, source)
        self._in_slots, self._unwanted = [], set()
        self._wait_for_writers(0)

    def _render_postponed(self, renderer: Renderer) -> None:
        """Renders, in memory that no slots need now, what was doubtful and had none."""
        while self._postponed:
            self._render_alone(renderer, *self._postponed[0], postpone=False)
            del self._postponed[0]

    def _count(self, order: Order, seconds: float) -> None:
        request, bucket = order.request, order.bucket
        slots = row_evaluations(request.scheduler, request.num_inference_steps, request.guided)
        key = (bucket.pipeline, bucket.height, bucket.width)
        with self._working:
            before = self._work.get(key, Work(0, 0.0))
            self._work[key] = Work(before.row_evaluations + slots, before.seconds + seconds)

    def _isolate(self, renderer: Renderer, bucket: Bucket, source: _Source, error: Exception) -> None:
        """Finds the image to blame for an error among those that were in the slots, by halves."""
        suspects = source.outstanding
        if not suspects:
            cannot = f"{bucket.pipeline.model} cannot render here: {_say(error)}"
            self._refuse(bucket.pipeline, ModelError(cannot))
            return
        if len(suspects) == 1 and not source.open:
            self._render_alone(renderer, suspects[0], f"raised {_say(error)}")
            return
        log.warning("%d images raised %s: rendering their halves", len(suspects), _say(error))
        middle = len(suspects) // 2
        for half in (suspects[:middle], suspects[middle:]):
            if half:
                self._render(renderer, bucket, _only(half))

    def _look_at(
        self, renderer: Renderer, bucket: Bucket, order: Order, result: Picture | ImagemillError
    ) -> None:
        """Hands a good picture on and renders a doubtful one again."""
        if isinstance(result, ImagemillError):
            self._retire(order, RenderError(str(result)))
        elif not result.finite:
            self._render_alone(renderer, order, "non-finite values")
        elif is_flat(result.pixels):
            self._render_alone(renderer, order, "one flat colour")
        else:
            self._retire(order, Finished(result, _rendered_by(renderer, bucket), None))

    def _render_alone(self, renderer: Renderer, order: Order, doubt: str, *, postpone: bool = True) -> None:
        """Renders a doubtful image once more, alone and in fp32: it is good, flagged or a failure then.

        `postpone`: when memory runs out beside the slots, it waits until they are empty.
        """
        with bound(**order.context):
            log.warning("%s; once more, alone in fp32", doubt)
        began = time.monotonic()
        try:
            picture = renderer.render_alone(order.request, order.init_latents, self._stop.is_set)
        except (Stopped, BrokenDevice):
            raise
        except Exception as error:
            if isinstance(error, OutOfMemory) and postpone:
                self._postponed.append((order, f"{doubt}, and no memory beside the others"))
                return
            self._retire(order, RenderError(f"raised {_say(error)}, alone in fp32 too"))
            return
        finally:
            self._elsewhere += time.monotonic() - began
        if not picture.finite:
            self._retire(order, RenderError("the model gave non-finite values, alone in fp32 too"))
            return
        flagged = "one flat colour" if is_flat(picture.pixels) else None
        alone = replace(order.bucket, slots=slots_alone(order.request), mode="exact")
        by = replace(_rendered_by(renderer, alone), precision="fp32")
        self._retire(order, Finished(picture, by, flagged))

    def _refuse(self, pipeline: Pipeline, error: ModelError) -> None:
        """Ends all that waits for a pipeline which this worker cannot render."""
        orders, questions = self._orders.empty(pipeline)
        for question in questions:
            if question.answer.set_running_or_notify_cancel():
                question.answer.set_exception(error)
        for order in orders:
            self._retire(order, error)

    # Retire.

    def _retire(self, order: Order, outcome: Outcome) -> None:
        self._wait_for_writers(2 * order.bucket.slots - 1)
        with self._written:
            self._unwritten.add(order)
        self.images += isinstance(outcome, Finished)
        self._writers.submit(self._deliver, order, outcome)

    def _wait_for_writers(self, most: int) -> None:
        """Waits until at most so many orders are not written yet; raises Stopped when told to stop."""
        with self._written:
            while not self._written.wait_for(lambda: len(self._unwritten) <= most, 0.2):
                if self._stop.is_set():
                    raise Stopped

    def _deliver(self, order: Order, outcome: Outcome) -> None:
        try:
            with bound(**order.context):
                order.deliver(outcome)
        finally:
            with self._written:
                self._unwritten.discard(order)
                self._written.notify_all()


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a renderer takes orders from, and those of them that did not come back yet."""

    take: Callable[[int], list[Order]]
    upcoming: Callable[[int], list[Order]]
    outstanding: list[Order]
    open: bool
    """Whether more may come."""


def _only(orders: list[Order]) -> _Source:
    """A source of these orders and no others; all of them are outstanding."""
    left = list(orders)

    def take(free_slots: int) -> list[Order]:
        fitting: list[Order] = []
        while left and slots_alone(left[0].request) <= free_slots:
            fitting.append(left.pop(0))
            free_slots -= slots_alone(fitting[-1].request)
        return fitting

    return _Source(take, lambda count: left[:count], list(orders), open=False)


def _rendered_by(renderer: Renderer, bucket: Bucket) -> RenderedBy:
    return RenderedBy(
        precision=renderer.precision,
        rows=bucket.slots,
        device=renderer.device,
        versions=renderer.versions,
        mode=bucket.mode,
    )


def _say(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
