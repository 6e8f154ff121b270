"""The renderer that paints with a diffusion model: text, denoising and decoding, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from jobs.adapters import NO_ADAPTERS
from jobs.errors import ImagemillError, RenderError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.request import ImageRequest
from worker.diffusion.adapters import AdapterSwitch
from worker.diffusion.decoding import timed_decoding
from worker.diffusion.denoiser import Denoiser, LatentImage
from worker.diffusion.denoiser_by_length import DenoiserByLength
from worker.diffusion.sampling import sample
from worker.diffusion.sampling_settings import Sampling
from worker.engine.renderer import (
    Asked,
    AskedT,
    Batching,
    Bucket,
    Painted,
    Picture,
    Source,
    Stopped,
)
from worker.engine.slot_count import fewest_cheap_slots
from worker.image_diffusion_model import ImageDiffusionModel, to_pixels
from worker.renderers.carried import carried
from worker.renderers.device import device_errors, kind_of_device, versions


@dataclass(frozen=True, slots=True, eq=False)
class _Decoded:
    """Pictures on their way from the device to the host."""

    asked: Sequence[Asked]
    pixels: torch.Tensor
    finite: torch.Tensor
    cut_of: Callable[[ImageRequest], str | None]
    """What of a request's texts was left out."""
    copied: Any
    """torch.cuda.Event; None where nothing had to be copied."""

    def here(self) -> bool:
        """Whether they have arrived."""
        return self.copied is None or bool(self.copied.query())

    def pictures(self) -> list[tuple[Asked, Picture]]:
        """Waits for the copy."""
        if self.copied is not None:
            self.copied.synchronize()
        each = zip(self.asked, self.pixels.numpy(), self.finite.tolist(), strict=False)
        return [
            (asked, Picture(pixels, finite, self.cut_of(asked.request))) for asked, pixels, finite in each
        ]


class DiffusionRenderer:
    """Paints with `model`; text encoder, UNet and VAE each see one shape all the time.

    Texts are encoded in batches of as many as there are slots, pictures decoded in batches of a quarter of
    them. What fills no batch is padded, so that an image's bytes follow from its request alone.
    """

    batching: Batching = "exact"

    def __init__(
        self,
        model: ImageDiffusionModel,
        adapters: AdapterSwitch | None = None,
        *,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """adapters: that of another renderer over the same modules. moved: called at each sign of progress
        while slots are measured."""
        self._model, self._moved = model, moved
        self.precision = model.precision.name
        self.device = kind_of_device(model.device, model.options)
        self.versions = versions()
        self._measured: dict[tuple[int, int], int] = {}
        compiled = "compiled" in model.options
        own = AdapterSwitch(_pipeline_of(model), compiled=compiled) if adapters is None else adapters
        self.adapters = own
        """What the model carries."""
        self.adapters.listen(model.forget_texts)

    def task(self, request: ImageRequest) -> str:
        """All images share forwards."""
        return ""

    def slots(self, request: ImageRequest) -> int:
        """Two for a guided image, whose UNet sees both texts; else one."""
        return 2 if request.guided else 1

    def forwards(self, request: ImageRequest) -> int:
        """How many forwards the image stays in its slots."""
        try:
            return self._model.scheduler_table(request.scheduler, request.num_inference_steps).forwards
        except RenderError:  # said when the image is to enter
            return request.num_inference_steps

    def measure_slots(self, height: int, width: int) -> int:
        """The slots that suit pictures of this size on this device; measured once."""
        if (height, width) not in self._measured:
            denoisers: dict[int, Denoiser] = {}

            def seconds(slots: int) -> float:
                with device_errors():
                    if slots not in denoisers:
                        denoisers[slots] = self._full_denoiser(height, width, slots)
                        # Not timed: the first compiles the UNet, or chooses the GPU's kernels.
                        self._seconds_of_forward(denoisers[slots])
                    return self._seconds_of_forward(denoisers[slots])

            # An IP-Adapter's UNet takes no text alone.
            with self.adapters.carrying(NO_ADAPTERS, NO_INPUTS):
                self._measured[height, width] = fewest_cheap_slots(seconds, self._moved)
        return self._measured[height, width]

    def render(
        self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]
    ) -> Iterator[list[Painted[AskedT]]]:
        """Paint until the source gives no more; see `Renderer.render`."""
        with device_errors():
            yield from self._render(bucket, source, stop)

    def _render(
        self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]
    ) -> Iterator[list[Painted[AskedT]]]:
        exact = bucket.mode == "exact"
        denoiser = DenoiserByLength(
            lambda tokens: self._model.denoiser(
                bucket.height, bucket.width, bucket.slots, padded=exact, tokens=tokens
            ),
            self._model.window,
        )
        together = max(1, bucket.slots // 4)
        painted: list[Painted[AskedT]] = []
        undecoded: list[tuple[LatentImage, torch.Tensor]] = []
        copying: list[_Decoded] = []
        stopped = False

        def take(free_slots: int) -> list[LatentImage]:
            entering: list[LatentImage] = []
            while asked := source.take(free_slots - sum(image.slots for image in entering)):
                ready, without = carried(self.adapters, bucket.adapters, asked)
                painted.extend(without)
                images, failed = self._prepare(ready, source, bucket.slots)
                entering += images
                painted.extend(failed)
            return entering

        for finished in sample(denoiser, take):
            stopped = stop()
            undecoded += finished
            while len(undecoded) >= together or (undecoded and (stopped or not denoiser.running)):
                copying.append(self._decode(undecoded[:together], together if exact else 1))
                del undecoded[:together]
            if stopped:  # what is finished is still handed over
                break
            while copying and copying[0].here():
                painted += copying.pop(0).pictures()  # type: ignore[arg-type]
            ready = painted.copy()
            painted.clear()
            yield ready
        for decoded in copying:
            painted += decoded.pictures()  # type: ignore[arg-type]
        yield painted
        if stopped:
            raise Stopped

    def render_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Picture:
        """The picture by itself and in fp32; see `Renderer.render_alone`."""
        # Before the weights go up: what is loaded among them is rounded as they are.
        carrying = self.adapters.carrying(request.adapters, inputs)
        with device_errors(), carrying, self._model.in_fp32():
            embeds = self._embeds([request], [], self.slots(request))
            waiting = [self._latent_image(_Alone(request, inputs), embeds)]
            denoiser = self._model.denoiser(
                request.height, request.width, self.slots(request), tokens=len(waiting[0].prompt_embeds)
            )
            for finished in sample(denoiser, lambda _free: [waiting.pop()] if waiting else []):
                for image, latents in finished:
                    return self._decode([(image, latents)], 1).pictures()[0][1]
                if stop():
                    raise Stopped
        raise RuntimeError("sampling ended without a picture")

    def _prepare(
        self, asked: Sequence[AskedT], source: Source[AskedT], slots: int
    ) -> tuple[list[LatentImage], list[Painted[AskedT]]]:
        """The images as the denoiser takes them; of those that cannot be, the error."""
        upcoming = [order.request for order in source.upcoming(slots)]
        embeds = self._embeds([order.request for order in asked], upcoming, slots)
        images: list[LatentImage] = []
        failed: list[Painted[AskedT]] = []
        for order in asked:
            try:
                images.append(self._latent_image(order, embeds))
            except ImagemillError as error:
                failed.append((order, error))
        return images, failed

    def _embeds(
        self, requests: Sequence[ImageRequest], ahead: Sequence[ImageRequest], batch: int
    ) -> dict[str, torch.Tensor]:
        texts = _texts(requests)
        if not texts:
            return {}
        embeds = self._model.get_text_embeds(texts, batch=batch, ahead=_texts(ahead))
        return dict(zip(texts, embeds, strict=True))

    def _latent_image(self, asked: Asked, embeds: dict[str, torch.Tensor]) -> LatentImage:
        request = asked.request
        named = request.init_latents
        init_latents = None if named is None else asked.inputs.latents(named)
        sampling = Sampling.of(request)
        if request.own_embeds:
            own = self._model.own_embeds(request)
            return self._model.latent_image(asked, *own, sampling, init_latents)
        negative = embeds[request.negative_prompt] if request.guided else None
        return self._model.latent_image(asked, embeds[request.prompt], negative, sampling, init_latents)

    @torch.inference_mode()
    def _decode(self, finished: Sequence[tuple[LatentImage, torch.Tensor]], batch: int) -> _Decoded:
        """Starts to decode images, in a batch filled up to `batch`, and to copy them to the host."""
        latents = torch.stack([latents for _image, latents in finished])
        padding = latents.new_zeros(max(0, batch - len(latents)), *latents.shape[1:])
        with timed_decoding(self._model.device):
            decoded = self._model.decode_img_latents(torch.cat([latents, padding]))[: len(latents)]
        finite = latents.isfinite().flatten(1).all(1) & decoded.isfinite().flatten(1).all(1)
        pixels = to_pixels(decoded)
        asked = [image.key for image, _latents in finished]
        if pixels.device.type != "cuda":
            return _Decoded(asked, pixels.cpu(), finite.cpu(), self._model.prompt_cut, None)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        on_host = [
            torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)
            for part in (pixels, finite)
        ]
        copied.record()
        return _Decoded(asked, on_host[0], on_host[1], self._model.prompt_cut, copied)

    def _full_denoiser(self, height: int, width: int, slots: int) -> Denoiser:
        """A denoiser whose slots all hold an image, for the next 50 forwards."""
        denoiser = self._model.denoiser(height, width, slots)
        embeds = self._model.get_text_embeds([""], batch=1)[0]
        for seed in range(slots):
            sampling = Sampling(height, width, 50, guidance_scale=1.0, scheduler="DDIM", seed=seed)
            denoiser.enter(self._model.latent_image(None, embeds, None, sampling))
        return denoiser

    def _seconds_of_forward(self, denoiser: Denoiser) -> float:
        began = time.perf_counter()
        denoiser.step()
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        return time.perf_counter() - began


@dataclass(frozen=True, slots=True, eq=False)
class _Alone:
    request: ImageRequest
    inputs: Inputs


def _pipeline_of(model: ImageDiffusionModel) -> StableDiffusionPipeline:
    """A pipeline of a model's own parts, for what diffusers does to a pipeline."""
    return StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=model.scheduler_LMS,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _texts(requests: Sequence[ImageRequest]) -> list[str]:
    """Every text that is encoded as it is, once: what guides away first, because many share it."""
    plain = [request for request in requests if not request.own_embeds]
    negatives = [request.negative_prompt for request in plain if request.guided]
    return list(dict.fromkeys([*negatives, *(request.prompt for request in plain)]))
