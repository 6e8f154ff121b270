"""What a renderer cannot render, and why: what an author or an operator is told."""

from __future__ import annotations

from jobs.errors import ModelError
from jobs.request import ImageRequest
from worker.engine.renderer import Bucket, OutOfMemory, Pipeline, Renderer, first_line


def keeps_mode(renderer: Renderer, bucket: Bucket) -> bool:
    """Whether a renderer renders the bucket's images in the mode that their job asks for."""
    return bucket.mode == "fast" or renderer.batching != "fast"


def why_not(renderer: Renderer, bucket: Bucket, request: ImageRequest) -> ModelError | None:
    """Why a renderer cannot render a request in a bucket; None: it can."""
    model = bucket.pipeline.model
    if not keeps_mode(renderer, bucket):
        return ModelError(
            f"{model} gives a picture other bytes beside other images, so its job cannot be of mode: exact: "
            "cancel the job, and submit it with `mode: fast`"
        )
    # An image that is alone needs no room in a forward.
    if renderer.batching != "alone" and (slots := renderer.slots(request)) > bucket.slots:
        return ModelError(
            f"an image of {model} takes {slots} slots of a forward, which has {bucket.slots} here: submit it "
            f"to another output, with --batch-size {slots} or more for its workers"
        )
    return None


def does_not_fit(pipeline: Pipeline, error: OutOfMemory) -> ModelError:
    """What is said of a pipeline that has no room on the device even by itself."""
    return ModelError(f"{pipeline.model} does not fit this device: {first_line(error)}")
