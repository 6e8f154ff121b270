"""How a model's images share forwards, task by task: learned at the first image of each, and kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from jobs.adapters import IP_ADAPTERS, NONE, controlnets_of
from jobs.errors import ImagemillError, RenderError
from jobs.pipelines.pipeline_task import TASK_PICTURES, pictures_of
from jobs.request import ImageRequest
from worker.diffusion.painter import Painter
from worker.diffusion.painters import Painters
from worker.engine.renderer import BrokenDevice, OutOfMemory, first_line
from worker.error_frames import drop_frames
from worker.renderers.device import device_errors
from worker.renderers.learned_cache import LearnedCache
from worker.renderers.learning import Learned, learn_and_prove, sample_of
from worker.renderers.paint_together import Computing

log = logging.getLogger(__name__)
_Key = tuple[tuple[str, ...], str, bool]
"""The pictures of requests, and their IP-Adapter."""


class LearnedTasks:
    """What was learned of the tasks of `painters`, which paint one model's images."""

    def __init__(
        self,
        painters: Painters,
        circumstances: Mapping[str, Any],
        *,
        model: str,
        computing: Computing,
        uncompiled: Computing,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """circumstances: what the pictures' bytes depend on besides the class, as of `LearnedCache`. model:
        its name. computing, uncompiled, moved: as of `learn_and_prove`."""
        self._painters, self._circumstances, self._model = painters, circumstances, model
        self._computing, self._uncompiled, self._moved = computing, uncompiled, moved
        self._found: dict[_Key, Learned | RenderError] = {}
        """An error where none of the images can be painted."""

    @property
    def first_pictures(self) -> tuple[str, ...]:
        """The pictures of the task that is learned first: none, unless the model paints from some only."""
        tasks = self._painters.model.tasks
        return () if "" in tasks else tuple(next(iter(tasks)).split("+"))

    def first(self) -> Learned:
        """What was learned of the first task. Raises ModelError: the model is refused."""
        found = self._found[self.first_pictures, NONE, False] = self._learn(self.first_pictures)
        return found

    def known(self, request: ImageRequest) -> Learned | None:
        """What was learned of a request's task so far."""
        found = self._found.get(_key(request))
        return found if isinstance(found, Learned) else None

    def of(self, request: ImageRequest, mode: str) -> tuple[Painter, Learned]:
        """What paints a request in a job of this mode, and how its images share forwards. The pipeline
        carries the request's adapters.

        Raises RenderError for a request of a task that the model does not have, whose images come out other
        than diffusers paints them, or that cannot keep `mode: exact`.
        """
        painter, key = self._painters.of(request), _key(request)
        if key not in self._found:
            try:
                self._found[key] = self._learn(pictures_of(request), request)
            except (OutOfMemory, BrokenDevice):  # says nothing of the task
                raise
            except Exception as error:
                reason = str(error) if isinstance(error, ImagemillError) else first_line(error)
                self._found[key] = RenderError(f"{painter.kind.name} paints nothing here: {reason}")
                drop_frames(error)
        learned = self._found[key]
        if isinstance(learned, RenderError):
            raise RenderError(str(learned))  # again: an error holds the calls that it went through
        if learned.batching == "fast" and mode == "exact":
            raise RenderError(
                f"{painter.kind.name} gives a picture other bytes beside other images: submit the images "
                "that it paints in a job with `mode: fast`"
            )
        return painter, learned

    def _learn(self, pictures: tuple[str, ...], like: ImageRequest | None = None) -> Learned:
        """What is known of images with these pictures; learned now, where no worker of this user has.

        like: one of them; None: they have neither ControlNets nor an IP-Adapter.
        """
        painter = self._painters.of_task("+".join(name for name in pictures if name in TASK_PICTURES))
        circumstances = {**self._circumstances, "class": painter.kind.name}
        if pictures:
            circumstances["task"] = "+".join(pictures)
        if like is not None and (beside := controlnets_of(like.controlnet)):
            circumstances["controlnets"] = [one.revision for one in beside]
        if like is not None and like.ip_adapter != NONE:
            circumstances["ip_adapter"] = IP_ADAPTERS.identified(like.ip_adapter)
            if like.ip_adapter_scale == 0:
                circumstances["ip_adapter_scale"] = 0
        cache = LearnedCache(circumstances)
        learned = cache.load()
        if learned is None:
            began = time.monotonic()
            with device_errors():
                with self._uncompiled():
                    sample = sample_of(painter, pictures, like)
                self._moved()
                learned = learn_and_prove(painter, sample, self._computing, self._uncompiled, self._moved)
            what = f"images of {self._model}" + (f" with {' and '.join(pictures)}" if pictures else "")
            log.info("learned in %.1f s how %s share forwards", time.monotonic() - began, what)
            cache.keep(learned)
        if learned.batching == "alone":
            name, reason = painter.kind.name, learned.reason
            log.warning("%s is a %s: one image a forward (%s)", self._model, name, reason)
        return learned


def _key(request: ImageRequest) -> _Key:
    # At scale 0 diffusers leaves the IP-Adapter's attention out: what was proved so says nothing of others.
    return pictures_of(request), request.ip_adapter, request.ip_adapter_scale == 0
