"""Interception: images of any pipeline share forwards, though each runs diffusers' own call, at batch 1.

Each image's call runs in a greenlet, on a copy of the pipeline that has schedulers of its own and a stand-in
for each denoiser. A stand-in's call parks the greenlet. The hub joins parked calls of one key into a forward
that always has all its slots, splits the output and resumes each greenlet with its part. No family's name
is here: `call_rules` says what belongs to a slot, `joined_calls` joins, `text_rules` says how texts of
different lengths meet.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from greenlet import GreenletExit, getcurrent, greenlet

from worker.diffusion.call_rules import Call, CallRules
from worker.diffusion.contents import Digests
from worker.diffusion.joined_calls import collate, keyed, split
from worker.diffusion.sharing_errors import UnknownCall
from worker.diffusion.stand_ins import CallDenoiser
from worker.diffusion.text_rules import text_rule_of
from worker.error_frames import drop_frames

Image = TypeVar("Image")

_PATIENCE = 8
"""Forwards in which a parked call may be passed over by other keys; then its key goes first."""


@dataclass(frozen=True, slots=True, eq=False)
class _Parked(Generic[Image]):
    image: Image
    coroutine: greenlet
    rules: CallRules
    module: Any
    call: Call
    key: int
    slots: int
    since: int
    """Forwards that had been run when it was parked."""


class Hub(Generic[Image]):
    """Runs the calls of many images; between two forwards each image is parked at one.

    Use: `start` images, `forward`, `finished`, and so on; `close` in any case. One thread uses it.
    """

    def __init__(
        self,
        rules: Mapping[str, CallRules],
        slots: int,
        *,
        spare: int = 0,
        padded: bool = True,
        computing: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """rules: of each denoiser, by its name, for images that are started without rules of their own.
        slots: of every forward; `spare` of them hold no image, as `text_rules` want it. computing: the
        context of all work.

        padded=False leaves free slots out: faster at the end of a job, and bytes may depend on neighbours.
        """
        self._rules, self._padded, self._computing = rules, padded, computing
        self._slots, self._spare = slots, spare
        self._parked: list[_Parked[Image]] = []
        self._finished: list[tuple[Image, Any]] = []
        self._digests = Digests()
        self._keys: dict[Hashable, int] = {}
        """Keys are long; a number stands for each."""
        self._known: list[CallRules] = []
        """All rules so far, each once: calls meet by the same rules only."""
        self.forwards = 0
        """Forwards run so far."""
        self.slots_used = 0
        """Slots of those that held an image."""

    @property
    def running(self) -> int:
        """Images in flight."""
        return len(self._parked)

    @property
    def free_slots(self) -> int:
        """Slots for which the next forward lacks calls.

        Where images are parked at calls of several keys, more of them are taken in, up to twice the slots.
        """
        by_key, room = self._slots_by_key(), self._slots - self._spare
        lacking = room - max(by_key.values(), default=0)
        return max(0, min(lacking, 2 * room - sum(by_key.values())))

    def start(
        self,
        image: Image,
        paint: Callable[[CallDenoiser], Any],
        rules: Mapping[str, CallRules] | None = None,
    ) -> None:
        """Runs an image until its first call of a denoiser. paint(call): the image's whole pipeline call.

        rules: those of its own pipeline's class, where images of several share the denoisers.
        """
        own = self._rules if rules is None else rules
        numbered = {denoiser: self._numbered(found) for denoiser, found in own.items()}
        park = partial(self._park, image, numbered)
        self._resume(greenlet(_run), paint, park, partial(self._end, image))

    def forward(self) -> None:
        """Runs one forward and resumes the images that were in it until their next call, or their end.

        Raises what the denoiser raises; the images of that forward then stay parked.
        """
        chosen = self._choose()
        rules, module = chosen[0].rules, chosen[0].module
        texts = text_rule_of(module)
        counts = [one.slots for one in chosen]
        needed = sum(counts) + self._spare
        slots = max(self._slots, needed) if self._padded else needed
        with torch.no_grad(), self._computing():
            together = collate(rules, [(one.call, one.slots) for one in chosen], slots)
            outputs = split(rules, module(**texts.fill_spare(together)), counts)
        self.forwards += 1
        self.slots_used += sum(counts)
        leaving = set(chosen)
        self._parked = [one for one in self._parked if one not in leaving]
        for one, output in zip(chosen, outputs, strict=True):
            self._resume(one.coroutine, output)

    def finished(self) -> list[tuple[Image, Any]]:
        """The images that ended since the last time: what `paint` returned, or the exception it raised."""
        finished = self._finished
        self._finished = []
        return finished

    def close(self) -> None:
        """Ends every image that is parked."""
        parked = self._parked
        self._parked = []
        with torch.no_grad(), self._computing():
            for one in parked:
                one.coroutine.parent = getcurrent()
                one.coroutine.throw(GreenletExit)

    def _end(self, image: Image, result: Any) -> None:
        self._finished.append((image, result))

    def _resume(self, coroutine: greenlet, *given: Any) -> None:
        # Here, because the mode is the thread's: each pipeline's own no_grad puts back what it found.
        with torch.no_grad(), self._computing():
            coroutine.parent = getcurrent()
            coroutine.switch(*given)

    def _numbered(self, rules: CallRules) -> tuple[int, CallRules]:
        """A number for the rules, and those of this number: equal rules have one."""
        if rules not in self._known:
            self._known.append(rules)
        number = self._known.index(rules)
        return number, self._known[number]

    def _park(
        self,
        image: Image,
        rules: Mapping[str, tuple[int, CallRules]],
        denoiser: str,
        module: Any,
        call: dict[str, Any],
    ) -> Any:
        """Runs in an image's greenlet, which waits here for its part of a forward's output."""
        if denoiser not in rules:
            raise UnknownCall(f"{denoiser} was not called when the pipeline was learned")
        number, own = rules[denoiser]
        texts = text_rule_of(module)
        prepared = texts.prepare(call)
        found = keyed(own, prepared, self._digests, texts.any_form)
        key = self._keys.setdefault((denoiser, number, found.key), len(self._keys))
        here, hub = getcurrent(), getcurrent().parent
        if hub is None:
            raise RuntimeError("a denoiser was called outside of the images that a hub runs")
        self._parked.append(_Parked(image, here, own, module, prepared, key, found.slots, self.forwards))
        return hub.switch()

    def _choose(self) -> list[_Parked[Image]]:
        """The calls of the next forward: of the key with most slots, or that of one that has waited long."""
        oldest = min(self._parked, key=lambda one: one.since)
        if self.forwards - oldest.since >= _PATIENCE:
            key = oldest.key
        else:
            by_key = self._slots_by_key()
            key = max(by_key, key=lambda key: min(by_key[key], self._slots))  # of equals the oldest
        chosen: list[_Parked[Image]] = []
        room = self._slots - self._spare
        for one in self._parked:
            if one.key == key and (one.slots <= room or not chosen):
                chosen.append(one)
                room -= one.slots
        return chosen

    def _slots_by_key(self) -> dict[int, int]:
        slots: dict[int, int] = {}
        for one in self._parked:
            slots[one.key] = slots.get(one.key, 0) + one.slots
        return slots


def _run(paint: Callable[[CallDenoiser], Any], call: CallDenoiser, end: Callable[[Any], None]) -> None:
    """What an image's greenlet does."""
    try:
        end(paint(call))
    except Exception as error:
        # What the image's calls held goes at once, not when the next garbage is collected.
        drop_frames(error)
        end(error)


def painted(result: Any) -> Any:
    """What an image's `paint` returned; raises the exception that it raised."""
    try:
        if isinstance(result, Exception):
            raise result
        return result
    finally:
        # Or the exception would be held by this call, which it holds.
        del result
