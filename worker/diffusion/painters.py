"""The painters of one model: one for each class that paints some of its images, all over the same modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline

from jobs.adapters import NONE, controlnets_of
from jobs.errors import RenderError
from jobs.pipelines.pipeline_class import PipelineClass
from jobs.pipelines.pipeline_task import painted_by, painting_class
from jobs.pipelines.pipelines import find_painting, find_pipeline
from jobs.request import ImageRequest
from worker.diffusion.painter import Painter
from worker.diffusion.pipeline_copy import denoisers
from worker.diffusion.stand_ins import RememberedTexts
from worker.diffusion.task_pipeline import joined_controlnets, task_pipeline


@dataclass(frozen=True, slots=True)
class Controlnets:
    """The ControlNets that are loaded beside a pipeline."""

    modules: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    """By their names, in the order of the manifest."""
    revisions: tuple[str, ...] = ()


class Painters:
    """Paints requests of one model with whichever pipeline their pictures need; each is made once."""

    def __init__(self, pipeline: DiffusionPipeline, controlnets: Controlnets | None = None) -> None:
        """Raises ModelError for a pipeline of a class that is not rendered, and for ControlNets of another
        kind than its tasks take."""
        self._controlnets = Controlnets() if controlnets is None else controlnets
        self._texts = RememberedTexts()
        self.own = Painter(pipeline, texts=self._texts)
        """That of the model's own class."""
        self.model = find_pipeline(type(pipeline).__name__)
        """What is known of the model's class."""
        self._by_class: dict[str, Painter] = {self.model.name: self.own}
        # Several are one module, which all classes share.
        self._controlnet: torch.nn.Module | None = None
        if self._controlnets.modules:
            kinds = [find_painting(name) for name in self.model.tasks.values()]
            for kind in kinds:
                if kind.takes_controlnet:
                    self._controlnet = joined_controlnets(kind.name, self._controlnets.modules)

    @property
    def denoisers(self) -> Mapping[str, Any]:
        """The modules that are called in each step, whichever pipeline paints, by name."""
        beside = {} if self._controlnet is None else {"controlnet": self._controlnet}
        return {**beside, **denoisers(self.own.pipeline)}

    def kind(self, request: ImageRequest) -> PipelineClass:
        """What is known of the class that paints a request; the model's own where none does."""
        return painting_class(self.model, request)

    def of(self, request: ImageRequest) -> Painter:
        """The painter of a request. Raises RenderError for pictures from which the model paints nothing, and
        for other ControlNets than are loaded."""
        kind = painted_by(self.model, request)
        if request.controlnet != NONE:
            wanted = tuple(one.revision for one in controlnets_of(request.controlnet))
            if wanted != self._controlnets.revisions:
                loaded = ", ".join(self._controlnets.revisions) if self._controlnets.revisions else "none"
                raise RenderError(
                    f"controlnet: the request is of {', '.join(wanted)}, and what is loaded is {loaded}: "
                    "name those of the request, in its order"
                )
        return self._of_kind(kind)

    def of_task(self, key: str) -> Painter:
        """The painter of a task that the model has, by its key."""
        return self._of_kind(find_painting(self.model.tasks[key]))

    def _of_kind(self, kind: PipelineClass) -> Painter:
        if kind.name not in self._by_class:
            controlnet = self._controlnet if kind.takes_controlnet else None
            made = task_pipeline(self.own.pipeline, kind.name, controlnet)
            self._by_class[kind.name] = Painter(made, kind, self.model, self._texts)
        return self._by_class[kind.name]

    def forget_texts(self) -> None:
        """Drops what text encoders gave so far: their weights have changed."""
        self._texts.forget()
