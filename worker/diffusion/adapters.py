"""What a pipeline carries for the images of one bucket, switched when the next one's differs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffusers import DiffusionPipeline

from jobs.adapters import (
    NO_ADAPTERS,
    NONE,
    Adapters,
    Lora,
    ip_adapter_of,
    loras_of,
    textual_inversions_of,
)
from jobs.errors import RenderError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from worker.diffusion.ip_adapter import ImageEncoder, IpAdapterSwitch
from worker.diffusion.textual_inversion import TextualInversions

if TYPE_CHECKING:
    from worker.diffusion.loras import Loras

log = logging.getLogger(__name__)


class AdapterSwitch:
    """Makes a pipeline carry what the images of a bucket ask for. A switch visits every layer, in Python.

    Whatever else paints with the pipeline's modules has to use the same switch.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        *,
        compiled: bool = False,
        image_encoder: ImageEncoder | None = None,
    ) -> None:
        """compiled: the denoiser runs through torch.compile. image_encoder: what IP-Adapters see pictures by;
        becomes a part of the pipeline."""
        self._pipeline = pipeline
        self._loras: Loras | None = None
        """None until the first image with one."""
        self._words = TextualInversions(pipeline, self._texts_changed)
        self._followed = IpAdapterSwitch(pipeline, image_encoder)
        self._compiled = compiled
        self._listeners: list[Callable[[], None]] = []
        self.on = NO_ADAPTERS
        """What the pipeline carries."""
        self._inputs: Inputs = NO_INPUTS
        """Where the files of `on` are."""
        self.switches = 0
        """How often that became something else."""

    def listen(self, texts_changed: Callable[[], None]) -> None:
        """Has this called whenever text encoders give something else than before."""
        self._listeners.append(texts_changed)

    def switch(self, adapters: Adapters, inputs: Inputs) -> None:
        """Makes the pipeline carry these adapters and no others; what it carries already costs nothing.

        inputs: where their files are. Raises RenderError for what this model cannot carry, InputError and
        OutputError for files that cannot be read: the pipeline then carries nothing, as if it never had.
        """
        if adapters != self.on:
            began = time.monotonic()
            self._switch(adapters, inputs)
            loras = 0
            if self._loras is not None:
                self._loras.forget_unused()
                loras = len(self._loras.on)
            self._followed.forget_unused()
            followed = "" if self._followed.on is None else ", an IP-Adapter"
            words, seconds = len(self._words.on), time.monotonic() - began
            text = "the model carries %d LoRAs, %d textual inversions%s (%.2f s)"
            log.info(text, loras, words, followed, seconds)

    @contextmanager
    def carrying(self, adapters: Adapters, inputs: Inputs) -> Iterator[None]:
        """Inside, the pipeline carries these adapters; after that, what it did before. Raises as `switch`."""
        before, its_inputs = self.on, self._inputs
        try:
            self._switch(adapters, inputs)
            yield
        finally:
            self._switch(before, its_inputs)  # what was forgotten meanwhile is read again

    def _switch(self, adapters: Adapters, inputs: Inputs) -> None:
        if adapters == self.on:
            return
        before, self.on = self._on_texts, NO_ADAPTERS
        self.switches += 1
        try:
            self._check_not_compiled(adapters)
            # First, so that LoRAs are loaded beside the model's own layers alone.
            self._followed.put_on(None, 1.0, NO_INPUTS)
            self._put_on(loras_of(adapters.loras), inputs)
            self._words.put_on(textual_inversions_of(adapters.textual_inversions), inputs)
            followed = ip_adapter_of(adapters.ip_adapter)
            self._followed.put_on(followed, adapters.ip_adapter_scale, inputs)
            self.on, self._inputs = adapters, inputs
        except BaseException:
            self._followed.put_on(None, 1.0, NO_INPUTS)
            self._put_on((), NO_INPUTS)
            self._words.put_on((), NO_INPUTS)
            raise
        finally:
            if self._on_texts != before:
                self._texts_changed()

    def _check_not_compiled(self, adapters: Adapters) -> None:
        """Raises RenderError where the denoiser is compiled, and would be another one."""
        for name, given, what in (
            ("loras", adapters.loras, "LoRA"),
            ("ip_adapter", adapters.ip_adapter, "IP-Adapter"),
        ):
            if self._compiled and given != NONE:
                raise RenderError(
                    f"{name}: this worker compiles its model (IMAGEMILL_TORCH_COMPILE = 1), and would do "
                    f"so again for each {what}: set IMAGEMILL_TORCH_COMPILE=0 for the workers of such images"
                )

    def _put_on(self, loras: Sequence[Lora], inputs: Inputs) -> None:
        if self._loras is None:
            if not loras:
                return
            # PEFT, which a model without LoRAs does not need.
            from worker.diffusion.loras import Loras

            self._loras = Loras(self._pipeline)
        self._loras.put_on(loras, inputs)

    @property
    def _on_texts(self) -> object:
        """What text encoders carry."""
        return () if self._loras is None else self._loras.on_texts

    def _texts_changed(self) -> None:
        for texts_changed in self._listeners:
            texts_changed()
