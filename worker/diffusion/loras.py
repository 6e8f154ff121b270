"""The LoRAs of a pipeline: those that it paints with, and those that it keeps loaded for later."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final

from diffusers import DiffusionPipeline
from peft.tuners.lora import LoraLayer

from jobs.adapters import Lora
from jobs.errors import RenderError
from jobs.inputs.inputs import Inputs
from worker.diffusion.lora_loading import LoadedLora, forget_lora, load_lora
from worker.diffusion.lora_turns import turn_off, turn_on

KEPT: Final = 1 << 30
"""Bytes of LoRAs that stay loaded: about ten for SDXL. Those that are painted with stay in any case."""
_REFUSALS: Final = 1000
_DIGITS: Final = 16
"""Of a file's hash, as the pipeline calls it."""

Scales = tuple[tuple[str, float], ...]
"""SHA-256 and scale of each LoRA, in their order."""


class Loras:
    """Loads LoRAs beside a pipeline's layers, never into them: without one, it paints as if it had none."""

    def __init__(self, pipeline: DiffusionPipeline, most: int = KEPT) -> None:
        """most: bytes of LoRAs that are kept; the longest unused goes first."""
        self._pipeline, self._most = pipeline, most
        self._loaded: OrderedDict[str, LoadedLora] = OrderedDict()
        """By the file's hash, the longest unused first."""
        self._refused: dict[str, str] = {}
        """Why a file cannot be loaded: a job may name it for each of a million images."""
        self.on: Scales = ()
        """What the pipeline paints with."""

    @property
    def loaded(self) -> tuple[str, ...]:
        """The hashes of those that are loaded, the longest unused first."""
        return tuple(self._loaded)

    @property
    def on_texts(self) -> Scales:
        """Those of `on` that change what text encoders give."""
        return tuple(
            (sha256, scale)
            for sha256, scale in self.on
            if any("text_encoder" in component for component in self._loaded[sha256].components)
        )

    def put_on(self, loras: Sequence[Lora], inputs: Inputs) -> None:
        """Makes the pipeline paint with these LoRAs and no others.

        inputs: where their files are. Raises RenderError for a file that is no LoRA of this model, and what
        `Inputs.private_copy` raises: the pipeline then paints with none.
        """
        wanted = tuple((one.sha256, one.scale) for one in loras)
        if wanted == self.on:
            return
        for sha256, _scale in self.on:
            turn_off(self._loaded[sha256].layers)
        self.on = ()
        self._check_each_once(loras)
        for one in loras:
            self._load(one, inputs)
        each: dict[LoraLayer, list[tuple[str, float]]] = {}
        for sha256, scale in wanted:
            for layer in self._loaded[sha256].layers:
                each.setdefault(layer, []).append((self._loaded[sha256].adapter, scale))
        try:
            for layer, adapters in each.items():
                turn_on(layer, adapters)
        except BaseException:
            turn_off(each)
            raise
        self.on = wanted

    def forget_unused(self) -> None:
        """Takes out what the pipeline does not paint with and has longest not, until the rest has room."""
        size = sum(one.size for one in self._loaded.values())
        on = {sha256 for sha256, _scale in self.on}
        for sha256 in [sha256 for sha256 in self._loaded if sha256 not in on]:
            if size <= self._most:
                return
            lora = self._loaded.pop(sha256)
            forget_lora(self._pipeline, lora.adapter)
            size -= lora.size

    def _check_each_once(self, loras: Sequence[Lora]) -> None:
        # diffusers would use the last scale for each.
        times = Counter(one.sha256 for one in loras)
        for one in loras:
            if times[one.sha256] > 1:
                raise RenderError(
                    f"loras: {one.name}: is named {times[one.sha256]} times: name it once, with the "
                    "sum of the scales"
                )

    def _load(self, lora: Lora, inputs: Inputs) -> None:
        """Loads a LoRA unless it is."""
        if lora.sha256 in self._loaded:
            self._loaded.move_to_end(lora.sha256)
            return
        if lora.sha256 not in self._refused:
            with inputs.private_copy(lora.sha256) as file:
                try:
                    self._loaded[lora.sha256] = load_lora(self._pipeline, file, lora.sha256[:_DIGITS])
                    return
                except RenderError as error:
                    if len(self._refused) >= _REFUSALS:
                        self._refused.clear()
                    self._refused[lora.sha256] = str(error)
        raise RenderError(f"loras: {lora.name}: {self._refused[lora.sha256]}")
