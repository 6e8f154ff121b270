"""The renderer of any diffusers pipeline: each image runs its own call, and the calls share forwards."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import DiffusionPipeline

from jobs.adapters import NO_ADAPTERS
from jobs.errors import ImagemillError, RenderError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.request import ImageRequest
from worker.diffusion.adapters import AdapterSwitch
from worker.diffusion.call_rules import Call
from worker.diffusion.compiling import compile_denoisers, to_channels_last, uncompiled
from worker.diffusion.contents import Digests
from worker.diffusion.in_float32 import in_float32
from worker.diffusion.interception import Hub, painted
from worker.diffusion.joined_calls import collate, keyed
from worker.diffusion.painter import Painting
from worker.diffusion.painters import Controlnets, Painters
from worker.diffusion.precision import Precision
from worker.diffusion.text_rules import text_rule_of
from worker.engine.renderer import (
    AskedT,
    Batching,
    Bucket,
    Painted,
    Picture,
    Source,
    Stopped,
)
from worker.engine.slot_count import FEWEST, fewest_cheap_slots
from worker.renderers.carried import carried
from worker.renderers.device import device_errors, kind_of_device, versions
from worker.renderers.learned_tasks import LearnedTasks
from worker.renderers.learning import Learned, of_size, sample_near
from worker.renderers.noise_pictures import NOISE_PICTURES
from worker.renderers.outcomes import failure_of, outcome_of, picture_of

log = logging.getLogger(__name__)

_ALONE_TOGETHER = 8
"""Images that are taken at a time where each is rendered alone."""


class _Grabbed(BaseException):
    """Ends a pipeline's call once the denoiser's arguments are known."""


class PipelineRenderer:
    """Paints with `pipeline`, which is on its device and in its precision; see `learning` for how.

    Texts are encoded and pictures decoded image by image, as in a call of the pipeline by itself. Images with
    pictures are painted by pipelines of other classes over the same modules (`Painters`), and share forwards
    with all others where their calls are alike.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        *,
        precision: Precision,
        device: torch.device,
        model: str,
        revision: str,
        adapters: AdapterSwitch | None = None,
        controlnets: Controlnets | None = None,
        known: Learned | None = None,
        compiled: bool = False,
        channels_last: bool = False,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """Learns how the pipeline's images share forwards, unless a worker of this user has before. What
        their pictures need is learned at the first image that has some.

        adapters: that of another renderer over the same modules. controlnets: on the same device and in the
        same precision. known: of images of text alone, which another renderer paints. compiled: forwards that
        images share run through torch.compile. channels_last: modules that convolve do so in that memory
        format. Both change the pipeline's modules. moved: called at each sign of progress while slots are
        measured, and while is learned how images share forwards.

        Raises ModelError when images come out as other pictures than diffusers paints, and for ControlNets of
        another kind than the pipeline takes.
        """
        self.pipeline = pipeline
        self._device, self._precision, self._moved = device, precision, moved
        self._painters = Painters(pipeline, controlnets)
        self._painter = self._painters.own
        self._compiled = compiled
        formats = ["channels last"] if channels_last and to_channels_last(self._picture_modules()) else []
        if compiled:
            compile_denoisers(self._painters.denoisers.values())
        self.precision = precision.name
        self.device = kind_of_device(device, ["compiled", *formats] if compiled else formats)
        self.versions = versions()
        self._tasks = LearnedTasks(
            self._painters,
            {
                "revision": revision,
                "precision": self.precision,
                "device": self.device,
                "versions": self.versions,
            },
            model=model,
            computing=self._computing,
            uncompiled=self._uncompiled,
            moved=moved,
        )
        self._learned = self._tasks.first() if known is None else known
        if compiled and self.batching == "alone":
            log.warning("%s: torch_compile has no effect, because no images share forwards", model)
            self.device = kind_of_device(device, formats)
        self._measured: dict[tuple[int, int], int] = {}
        self.adapters = AdapterSwitch(pipeline, compiled=compiled) if adapters is None else adapters
        """What the pipeline carries."""
        self.adapters.listen(self._painters.forget_texts)

    @property
    def batching(self) -> Batching:
        """How the pipeline's images share forwards."""
        return self._learned.batching

    def task(self, request: ImageRequest) -> str:
        """All images share forwards."""
        return ""

    def slots(self, request: ImageRequest) -> int:
        """The most slots that a call of a denoiser takes for this image; before its task was learned, those
        of an image of text alone."""
        kind, known = self._painters.kind(request), self._tasks.known(request)
        slots = (self._learned if known is None else known).slots
        return slots[kind.guided(request)] + kind.more_slots(request)

    def forwards(self, request: ImageRequest) -> int:
        """About how many calls of denoisers the image makes."""
        return math.ceil(self._painters.kind(request).slot_evaluations(request) / self.slots(request))

    def measure_slots(self, height: int, width: int) -> int:
        """The slots that suit pictures of this size on this device; measured once."""
        if self.batching == "alone":
            return max(FEWEST, *self._learned.slots)
        if (height, width) not in self._measured:
            # An IP-Adapter's UNet takes no text alone.
            plain = self.adapters.carrying(NO_ADAPTERS, NO_INPUTS)
            with plain, torch.no_grad(), self._computing():
                with device_errors():
                    name, module, call = self._grabbed(height, width)
                    taken = keyed(self._learned.rules[name], call, Digests()).slots

                def seconds(slots: int) -> float:
                    # Here, because the measuring goes on with fewer slots where memory runs out.
                    with device_errors():
                        collated = collate(self._learned.rules[name], [(call, taken)], max(slots, taken))
                        collated = text_rule_of(module).fill_spare(collated)
                        if slots not in warm:
                            module(**collated)  # not timed: the first compiles, or chooses the GPU's kernels
                            warm.add(slots)
                        began = time.perf_counter()
                        module(**collated)
                        if self._device.type == "cuda":
                            torch.cuda.synchronize(self._device)
                        return time.perf_counter() - began

                warm: set[int] = set()
                cheap = fewest_cheap_slots(seconds, self._moved)
            self._measured[height, width] = max(cheap, self._fewest)
        return self._measured[height, width]

    def render(
        self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]
    ) -> Iterator[Sequence[Painted[AskedT]]]:
        """Paint until the source gives no more; see `Renderer.render`."""
        if self.batching == "alone":
            yield from self._one_by_one(bucket, source, stop)
            return
        # Free slots are not left out of compiled forwards: compiling each number would outlast the tail.
        hub: Hub[AskedT] = self._hub(bucket.slots, padded=bucket.mode == "exact" or self._compiled)
        alone: list[AskedT] = []
        try:
            while True:
                done: list[Painted[AskedT]] = []
                while (
                    len(alone) < _ALONE_TOGETHER and hub.free_slots and (asked := source.take(hub.free_slots))
                ):
                    ready, without = carried(self.adapters, bucket.adapters, asked)
                    done += without
                    for one in ready:
                        try:
                            painter, learned = self._tasks.of(one.request, bucket.mode)
                        except RenderError as error:
                            done.append((one, error))
                            continue
                        if learned.batching == "alone":
                            alone.append(one)
                        else:
                            paint = partial(painter.paint, one.request, one.inputs)
                            hub.start(one, paint, learned.rules)
                if alone:
                    done.append(self._by_itself(alone.pop(0), stop))
                running = hub.running > 0
                if running:
                    with device_errors():
                        hub.forward()
                stopped = stop()
                yield [*done, *((one, outcome_of(painting)) for one, painting in hub.finished())]
                if stopped:
                    raise Stopped
                if not running and not done:
                    return
        finally:
            hub.close()

    def render_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Picture:
        """The picture by itself and in fp32; see `Renderer.render_alone`."""
        painter, learned = self._painters.own, self._learned
        # Before the weights go up: what is loaded among them is rounded as they are.
        with ExitStack() as stack:
            stack.enter_context(device_errors())
            stack.enter_context(self.adapters.carrying(request.adapters, inputs))
            if self.batching != "alone":
                painter, learned = self._tasks.of(request, "fast")
            stack.enter_context(self._in_fp32())
            if learned.batching == "alone":
                return picture_of(self._paint_alone(request, inputs, stop))
            hub: Hub[ImageRequest] = self._hub(self.slots(request), padded=True)
            try:
                hub.start(request, partial(painter.paint, request, inputs), learned.rules)
                while hub.running:
                    hub.forward()
                    if stop():
                        raise Stopped
                return picture_of(painted(hub.finished()[0][1]))
            finally:
                hub.close()

    def _hub(self, slots: int, *, padded: bool) -> Hub[Any]:
        spare = self._painter.spare_slots
        return Hub(
            self._learned.rules,
            # Beside spare slots, an image that takes all of the others would never be let in.
            max(slots, self._fewest) if spare else slots,
            spare=spare,
            padded=padded,
            computing=self._computing,
        )

    @property
    def _fewest(self) -> int:
        """Slots in which any image has room."""
        return max(self._learned.slots) + self._painter.spare_slots

    def _computing(self) -> AbstractContextManager[object]:
        return self._precision.computing(self._device)

    def _uncompiled(self) -> AbstractContextManager[object]:
        """Around calls of denoisers that are not shared forwards."""
        return uncompiled() if self._compiled else nullcontext()

    def _picture_modules(self) -> list[torch.nn.Module]:
        """What works on pictures and latents: denoisers and autoencoders."""
        components = self.pipeline.components.values()
        autoencoders = [
            part for part in components if isinstance(part, torch.nn.Module) and hasattr(part, "decode")
        ]
        return [*self._painters.denoisers.values(), *autoencoders]

    # Images that cannot share forwards.

    def _one_by_one(
        self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]
    ) -> Iterator[Sequence[Painted[AskedT]]]:
        while asked := source.take(max(bucket.slots, _ALONE_TOGETHER)):
            ready, failed = carried(self.adapters, bucket.adapters, asked)
            yield failed
            for one in ready:
                yield [self._by_itself(one, stop)]

    def _by_itself(self, one: AskedT, stop: Callable[[], bool]) -> Painted[AskedT]:
        outcome: Picture | ImagemillError
        try:
            outcome = picture_of(self._paint_alone(one.request, one.inputs, stop))
        except Exception as error:  # `failure_of` raises those that are not the image's own
            outcome = failure_of(error)
        return one, outcome

    def _paint_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Painting:
        """The pipeline's own call, on its own modules. Raises Stopped between two forwards."""

        def look(_module: Any, _args: Any) -> None:
            if stop():
                raise Stopped

        painter = self._painters.of(request)
        hooks = [module.register_forward_pre_hook(look) for module in painter.denoisers.values()]
        try:
            with torch.no_grad(), self._computing(), self._uncompiled():
                return painter.paint(request, inputs)
        finally:
            for hook in hooks:
                hook.remove()

    # What is done once, or rarely.

    def _grabbed(self, height: int, width: int) -> tuple[str, Any, Call]:
        """The first call of the largest denoiser for a picture of this size."""
        largest = max(self._learned.rules, key=lambda name: _weights(self._painter.denoisers[name]))
        found: list[tuple[str, Any, Call]] = []

        def grab(name: str, module: Any, call: dict[str, Any]) -> Any:
            if name != largest:
                return module(**call)
            found.append((name, module, text_rule_of(module).prepare(call)))
            raise _Grabbed

        with suppress(_Grabbed), self._uncompiled():
            sample = sample_near(self._painter, max(height, width), self._tasks.first_pictures)
            sized = of_size(self._painter.kind, sample, height, width)
            self._painter.paint(sized, NOISE_PICTURES, call=grab)
        return found[0]

    @contextmanager
    def _in_fp32(self) -> Iterator[None]:
        """Everything inside computes in float32; the weights come back bit for bit."""
        components = [*self.pipeline.components.values(), *self._painters.denoisers.values()]
        modules = [part for part in components if isinstance(part, torch.nn.Module)]
        before = self._precision
        self._precision = replace(before, autocast=None)
        self._painters.forget_texts()
        try:
            with in_float32(modules), self._uncompiled():
                yield
        finally:
            self._precision = before
            self._painters.forget_texts()


def _weights(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
