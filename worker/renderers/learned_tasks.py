"""How a model's images share forwards, task by task: learned at the first image of each, and kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from jobs.adapters import NONE, controlnets_of
from jobs.errors import ImagemillError, RenderError
from jobs.pipeline_task import TASK_PICTURES, task_of
from jobs.request import ImageRequest
from worker.diffusion.painter import Painter
from worker.diffusion.painters import Painters
from worker.engine.renderer import BrokenDevice, OutOfMemory, first_line
from worker.error_frames import drop_frames
from worker.renderers.device import device_errors
from worker.renderers.learned_cache import LearnedCache
from worker.renderers.learning import Computing, Learned, learn_and_prove, sample_of

log = logging.getLogger(__name__)


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
    ) -> None:
        """circumstances: what the pictures' bytes depend on besides the class, as of `LearnedCache`. model:
        its name. computing, uncompiled: as of `learn_and_prove`."""
        self._painters, self._circumstances, self._model = painters, circumstances, model
        self._computing, self._uncompiled = computing, uncompiled
        self._found: dict[str, Learned | RenderError] = {}
        """By the task's key; an error where none of its images can be painted."""

    @property
    def first_pictures(self) -> tuple[str, ...]:
        """The pictures of the task that is learned first: none, unless the model paints from some only."""
        return _pictures(self._first)

    @property
    def _first(self) -> str:
        tasks = self._painters.model.tasks
        return "" if "" in tasks else next(iter(tasks))

    def first(self) -> Learned:
        """What was learned of the first task. Raises ModelError: the model is refused."""
        found = self._found[self._first] = self._learn(self._first, NONE)
        return found

    def known(self, request: ImageRequest) -> Learned | None:
        """What was learned of a request's task so far."""
        found = self._found.get(task_of(request))
        return found if isinstance(found, Learned) else None

    def of(self, request: ImageRequest, mode: str) -> tuple[Painter, Learned]:
        """What paints a request in a job of this mode, and how its images share forwards.

        Raises RenderError for a request of a task that the model does not have, whose images come out other
        than diffusers paints them, or that cannot keep `mode: exact`.
        """
        painter, key = self._painters.of(request), task_of(request)
        if key not in self._found:
            try:
                self._found[key] = self._learn(key, request.controlnet)
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

    def _learn(self, key: str, controlnet: str) -> Learned:
        """What is known of a task; learned now, where no worker of this user has."""
        painter, pictures = self._painters.of_task(key), _pictures(key)
        circumstances = {**self._circumstances, "class": painter.kind.name}
        if key:
            circumstances["task"] = key
        if beside := controlnets_of(controlnet):
            circumstances["controlnets"] = [one.revision for one in beside]
        cache = LearnedCache(circumstances)
        learned = cache.load()
        if learned is None:
            began = time.monotonic()
            with device_errors():
                with self._uncompiled():
                    sample = sample_of(painter, pictures, controlnet)
                learned = learn_and_prove(painter, sample, self._computing, self._uncompiled)
            what = f"images of {self._model}" + (f" with {' and '.join(pictures)}" if pictures else "")
            log.info("learned in %.1f s how %s share forwards", time.monotonic() - began, what)
            cache.keep(learned)
        if learned.batching == "alone":
            name, reason = painter.kind.name, learned.reason
            log.warning("%s is a %s: one image a forward (%s)", self._model, name, reason)
        return learned


def _pictures(key: str) -> tuple[str, ...]:
    """The settings that a task's images have pictures for."""
    return tuple(name for name in TASK_PICTURES if name in key.split("+"))
