"""Slots of one shape on the device: images enter and leave between forwards, each at its own timestep."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worker.diffusion.scheduler_table import OUTPUT_TERMS, TERMS, X_TERMS, SchedulerTable

_NOISE = TERMS - 1


@dataclass(frozen=True, slots=True, eq=False)
class LatentImage:
    """One image as the denoiser takes it; everything but the embeddings may lie on the CPU."""

    key: Any
    """What its caller knows it by."""
    latents: torch.Tensor
    """[C,h,w] float32, standard normal."""
    prompt_embeds: torch.Tensor
    """[L,D]."""
    negative_embeds: torch.Tensor | None
    """[L,D]; None: unguided, so that the image takes one slot instead of two."""
    guidance_scale: float
    table: SchedulerTable
    scheduler: Any
    """The scheduler itself, with its timesteps set, where the table is not linear; else None."""
    generator: torch.Generator
    """On the CPU, where it stands after the initial latents: the noise of stochastic schedulers."""

    @property
    def slots(self) -> int:
        return 1 if self.negative_embeds is None else 2


@dataclass(slots=True, eq=False)
class _Running:
    image: LatentImage
    place: int
    slots: tuple[int, ...]
    """The prompt's slot, and the negative prompt's before it where there is one."""
    done: int = 0


class Denoiser:
    """`slots` slots of a forward, and the state of the images in them, for one UNet and one shape.

    All state is on the device: the last 4 latents and 4 outputs of each image, its coefficients, its step. A
    step reads nothing back, so the host runs ahead of a GPU. Every forward has all `slots` slots, the
    free ones empty: an image's bytes then do not depend on what the others hold. `padded=False` leaves the
    free slots out, which is faster at the end of a job and gives that promise up.
    """

    def __init__(
        self,
        unet: Any,
        latents_shape: tuple[int, int, int],
        embeds_shape: tuple[int, int],
        slots: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        computing: Callable[[], AbstractContextManager[object]] = nullcontext,
        padded: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """latents_shape: (C,h,w). embeds_shape: (L,D). dtype: of the UNet's weights; the state is float32:
        multistep schedulers add up small differences of large numbers, which half precision loses.
        computing: the context of a forward (autocast).
        """
        self._unet, self._dtype, self._device = unet, dtype, device
        self._computing, self._padded, self._memory_format = computing, padded, memory_format
        self.slots = slots

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        # By place: as many as images fit when none is guided.
        self._history = zeros(TERMS, slots, *latents_shape)  # x of 4 steps, outputs of 4 steps, noise
        self._schedules = zeros(slots, 1, TERMS + 2)  # coefficients, timestep, input scale of each forward
        self._guidance = zeros(slots, 1, 1, 1)
        self._step, self._running_flag = zeros(slots, dtype=torch.int64), zeros(slots, dtype=torch.int64)
        self._prompt_slot, self._negative_slot = (
            zeros(slots, dtype=torch.int64),
            zeros(slots, dtype=torch.int64),
        )
        # By slot.
        self._embeds = zeros(slots, *embeds_shape, dtype=dtype)
        self._place_of_slot = zeros(slots, dtype=torch.int64)
        self._places = torch.arange(slots, device=device)
        self._running: list[_Running] = []
        self._used: torch.Tensor | None = None
        self._free_slots = list(range(slots))
        self._free_places = list(range(slots))
        self.forwards = 0
        """UNet calls so far."""
        self.row_evaluations = 0
        """Slots of all those calls."""

    @property
    def free_slots(self) -> int:
        return len(self._free_slots)

    @property
    def running(self) -> int:
        """Images in flight."""
        return len(self._running)

    @torch.inference_mode()
    def enter(self, image: LatentImage) -> None:
        """Puts an image into free slots, at the start of its schedule. ValueError when they are too few."""
        if image.slots > self.free_slots:
            raise ValueError(f"{image.slots} slots wanted, {self.free_slots} are free")
        place = self._free_places.pop(0)
        slots = tuple(self._free_slots.pop(0) for _ in range(image.slots))
        table = image.table
        self._make_room(table.forwards)
        self._history[:, place] = 0
        self._history[0, place] = self._to_device(image.latents * table.init_noise_sigma)
        self._schedules[place, : table.forwards] = self._to_device(_schedule(table))
        self._guidance[place] = image.guidance_scale
        self._step[place], self._running_flag[place] = 0, 1
        self._prompt_slot[place], self._negative_slot[place] = slots[-1], slots[0]
        for slot in slots:
            self._place_of_slot[slot] = place
        self._embeds[slots[-1]] = image.prompt_embeds
        if image.negative_embeds is not None:
            self._embeds[slots[0]] = image.negative_embeds
        self._running.append(_Running(image, place, slots))
        self._used = None

    @torch.inference_mode()
    def step(self) -> list[tuple[LatentImage, torch.Tensor]]:
        """One forward of all slots, one update of all images; gives those that it finished, with their
        latents [C,h,w] float32 on the device.
        """
        now = self._schedules[self._places, self._step]
        coefficients, timesteps, input_scales = now[:, :TERMS], now[:, TERMS], now[:, TERMS + 1]
        inputs = self._history[0] * input_scales.view(-1, 1, 1, 1)
        output = self._forward(inputs[self._place_of_slot], timesteps[self._place_of_slot])
        negative = output[self._negative_slot]
        guided = negative + self._guidance * (output[self._prompt_slot] - negative)
        self._age(X_TERMS, OUTPUT_TERMS, guided)
        self._draw_noise()
        # Product by product, sum by sum: these round the same wherever an image stands; fused ones may not.
        products = coefficients.T[:, :, None, None, None] * self._history
        following = products[0]
        for product in products[1:]:
            following = following + product
        for one in self._running:
            if one.image.table.coefficients is None:
                following[one.place] = self._step_by_itself(one, guided)
        self._age(0, X_TERMS, following)
        self._step += self._running_flag
        return self._leave()

    def _forward(self, inputs: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The UNet's output of every slot, float32; zero in slots that are left out."""
        used = self._used_slots()
        with self._computing():
            output: torch.Tensor = self._unet(
                inputs[used].to(self._dtype).contiguous(memory_format=self._memory_format),
                timesteps[used],
                encoder_hidden_states=self._embeds[used],
                return_dict=False,
            )[0].float()
        self.forwards += 1
        self.row_evaluations += len(output)
        if len(output) == self.slots:
            return output
        whole = torch.zeros_like(inputs)
        whole[used] = output
        return whole

    def _used_slots(self) -> torch.Tensor | slice:
        """The slots that a forward has: all, or without padding those that hold an image."""
        if self._padded or not self._free_slots:
            return slice(None)
        if self._used is None:
            slots = sorted(slot for one in self._running for slot in one.slots)
            self._used = torch.tensor(slots, device=self._device)
        return self._used

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A float32 copy, which a GPU fetches without being waited for."""
        # From pinned memory; torch's allocator keeps that until it was copied.
        ready = tensor.float().pin_memory() if self._device.type == "cuda" else tensor.float()
        return ready.to(self._device, non_blocking=True)

    def _age(self, first: int, count: int, newest: torch.Tensor) -> None:
        """Moves `count` terms of the history one step back and puts the newest in front."""
        self._history[first + 1 : first + count] = self._history[first : first + count - 1].clone()
        self._history[first] = newest

    def _draw_noise(self) -> None:
        for one in self._running:
            if one.image.table.coefficients is not None and one.image.table.draws[one.done]:
                noise = torch.randn(self._history.shape[2:], generator=one.image.generator)
                self._history[_NOISE, one.place] = self._to_device(noise)

    def _step_by_itself(self, one: _Running, guided: torch.Tensor) -> torch.Tensor:
        """The next latents of an image whose scheduler is not linear, by the scheduler itself."""
        image, place = one.image, slice(one.place, one.place + 1)
        takes_noise = "generator" in inspect.signature(image.scheduler.step).parameters
        noise = {"generator": image.generator} if takes_noise else {}
        following: torch.Tensor = image.scheduler.step(
            guided[place],
            image.scheduler.timesteps[one.done],
            self._history[0, place],
            return_dict=False,
            **noise,
        )[0]
        return following[0]

    def _leave(self) -> list[tuple[LatentImage, torch.Tensor]]:
        finished = []
        for one in self._running:
            one.done += 1
            if one.done == one.image.table.forwards:
                finished.append((one.image, self._history[0, one.place].clone()))
                self._history[:, one.place] = 0
                self._step[one.place], self._running_flag[one.place] = 0, 0
                self._free_slots.extend(one.slots)
                self._free_places.append(one.place)
                self._used = None
        self._running = [one for one in self._running if one.done < one.image.table.forwards]
        return finished

    def _make_room(self, forwards: int) -> None:
        """Lengthens the tables for a schedule of so many forwards."""
        lacking = forwards - self._schedules.shape[1]
        if lacking > 0:
            self._schedules = torch.nn.functional.pad(self._schedules, (0, 0, 0, lacking))


def _schedule(table: SchedulerTable) -> torch.Tensor:
    """[K, TERMS + 2]: coefficients (zeros where the scheduler itself steps), timesteps, input scales."""
    coefficients = table.coefficients
    if coefficients is None:
        coefficients = np.zeros((table.forwards, TERMS))
    return torch.from_numpy(np.column_stack([coefficients, table.timesteps, table.input_scales]))
