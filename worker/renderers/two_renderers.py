"""One model by two renderers: text alone by tables, images with pictures by interception."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from jobs.inputs.inputs import Inputs
from jobs.pipelines.pipeline_task import pictures_of
from jobs.request import ImageRequest
from worker.engine.renderer import AskedT, Batching, Bucket, Painted, Picture, Source
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.learning import Learned
from worker.renderers.pipeline_renderer import PipelineRenderer

PICTURES: Final = "pictures"
"""The task of images that begin with pictures or follow some."""
BY_TABLES: Final = Learned("exact", {}, slots=(1, 2))
"""What the second renderer has to know of text alone: a guided image takes two slots."""


class TwoRenderers:
    """Paints with a model's tables, or with pipelines of other classes over the same modules."""

    batching: Batching = "exact"

    def __init__(self, tables: DiffusionRenderer, pictures: PipelineRenderer) -> None:
        """tables: of text alone. pictures: of the other images; it knows BY_TABLES of text alone."""
        self._tables, self._pictures = tables, pictures
        self.device, self.precision, self.versions = tables.device, tables.precision, tables.versions

    def task(self, request: ImageRequest) -> str:
        """PICTURES for an image that has some, else "": the two never share a forward."""
        return PICTURES if pictures_of(request) else ""

    def slots(self, request: ImageRequest) -> int:
        """The slots of a forward that the image takes."""
        return self._of(self.task(request)).slots(request)

    def forwards(self, request: ImageRequest) -> int:
        """How many forwards the image stays in its slots."""
        return self._of(self.task(request)).forwards(request)

    def measure_slots(self, height: int, width: int) -> int:
        """The slots that suit pictures of this size on this device, whatever they are painted from."""
        return self._tables.measure_slots(height, width)

    def render(
        self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]
    ) -> Iterator[Sequence[Painted[AskedT]]]:
        """Paint until the source gives no more; see `Renderer.render`."""
        return self._of(bucket.task).render(bucket, source, stop)

    def render_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Picture:
        """The picture by itself and in fp32; see `Renderer.render_alone`."""
        return self._of(self.task(request)).render_alone(request, inputs, stop)

    def _of(self, task: str) -> DiffusionRenderer | PipelineRenderer:
        return self._pictures if task == PICTURES else self._tables
