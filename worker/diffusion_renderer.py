"""The renderer that paints with a diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import diffusers
import numpy as np
import torch

from jobs.metadata import imagemill_version
from jobs.request import ImageRequest
from worker.image_diffusion_model import ImageDiffusionModel, to_pixels
from worker.renderer import (
    BrokenDevice,
    OutOfMemory,
    Picture,
    RenderedBy,
    Stopped,
    check_batch,
    images_per_batch,
)


class DiffusionRenderer:
    """Paints micro-batches of `rows` rows with `model`, always at the full size.

    A batch with fewer requests is padded with its last one. Text encoder, UNet and VAE then see the same
    shapes every time, and an image's bytes follow from its request alone.
    """

    def __init__(self, model: ImageDiffusionModel, rows: int) -> None:
        self._model = model
        self._rows = rows
        device = model.device
        self.rendered_by = RenderedBy(
            precision=model.precision.name,
            rows=rows,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            versions={
                "torch": str(torch.__version__),
                "diffusers": str(diffusers.__version__),
                "imagemill": imagemill_version(),
            },
        )

    def batch_size(self, request: ImageRequest) -> int:
        """The images of a full micro-batch of requests like this one; at least 1."""
        return images_per_batch(request, self._rows)

    def render(
        self,
        requests: Sequence[ImageRequest],
        init_latents: Sequence[np.ndarray | None],
        stop: Callable[[], bool],
    ) -> list[Picture]:
        """The pictures of one micro-batch, in order; see `Renderer.render`."""
        check_batch(requests, init_latents, self._rows)
        padding = self.batch_size(requests[0]) - len(requests)
        pictures = self._paint(
            [*requests, *[requests[-1]] * padding], [*init_latents, *[init_latents[-1]] * padding], stop
        )
        return pictures[: len(requests)]

    def halve_rows(self) -> bool:
        """Makes micro-batches half as large from now on; False when they cannot be smaller."""
        if self._rows <= 2:
            return False
        self._rows //= 2
        self.rendered_by = replace(self.rendered_by, rows=self._rows)
        return True

    def render_alone(
        self, request: ImageRequest, init_latents: np.ndarray | None, stop: Callable[[], bool]
    ) -> Picture:
        """The picture once more, by itself and in fp32; see `Renderer.render_alone`."""
        with self._model.in_fp32():
            return self._paint([request], [init_latents], stop)[0]

    def _paint(
        self,
        requests: Sequence[ImageRequest],
        init_latents: Sequence[np.ndarray | None],
        stop: Callable[[], bool],
    ) -> list[Picture]:
        with _device_errors():
            return self._painted(requests, init_latents, stop)

    def _painted(
        self,
        requests: Sequence[ImageRequest],
        init_latents: Sequence[np.ndarray | None],
        stop: Callable[[], bool],
    ) -> list[Picture]:
        def leave(done: int, total: int) -> None:
            if done < total and stop():
                raise Stopped

        one = requests[0]
        embeds = self._model.get_prompt_embeds(
            [request.prompt for request in requests],
            [request.negative_prompt for request in requests] if one.guided else "",
        )
        latents = self._model.get_img_latents(
            embeds,
            one.height,
            one.width,
            one.num_inference_steps,
            [request.guidance_scale for request in requests],
            init_latents,
            seeds=[request.seed for request in requests],
            scheduler=one.scheduler,
            on_step=leave,
        )
        decoded = self._model.decode_img_latents(latents)
        finite = (latents.isfinite().flatten(1).all(1) & decoded.isfinite().flatten(1).all(1)).tolist()
        return [Picture(pixels, ok) for pixels, ok in zip(to_pixels(decoded), finite, strict=True)]


@contextmanager
def _device_errors() -> Iterator[None]:
    """Tells errors of the device from those of a request."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemory(str(error)) from error
    except torch.AcceleratorError as error:
        raise BrokenDevice(str(error)) from error
    except RuntimeError as error:
        # The CPU's allocator raises no class of its own.
        if "can't allocate memory" in str(error):
            raise OutOfMemory(str(error)) from error
        raise
