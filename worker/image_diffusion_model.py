"""A Stable Diffusion model and its named steps, from prompts to pictures."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from jobs.bounds import must_be_multiple
from jobs.errors import LatentsError, ModelError, RenderError
from jobs.request import ImageRequest
from jobs.schedulers import find_scheduler
from jobs.wording import counted
from worker.diffusion.build_scheduler import build_scheduler, correct_scheduler
from worker.diffusion.compiled_schedulers import CompiledSchedulers
from worker.diffusion.compiling import graph_for_each_shape
from worker.diffusion.denoiser import Denoiser, LatentImage
from worker.diffusion.own_embeds import ClipEncoder, OwnEmbeds
from worker.diffusion.precision import Precision, resolve_device, resolve_precision
from worker.diffusion.sampling import sample
from worker.diffusion.sampling_settings import Sampling
from worker.diffusion.scheduler_table import SchedulerTable
from worker.diffusion.stand_ins import RememberedTexts
from worker.diffusion.text_embeds import TextEmbeds
from worker.diffusion.told_cuts import told_cut
from worker.engine.admission_queue import queue_of

Latents = torch.Tensor | np.ndarray

_MOST_SLOTS = 32
"""Slots of a forward when a call names none: what more images bring is little, what they hold is memory."""
_DECODED_TOGETHER = 4
"""Pictures that the VAE decodes at a time: each takes many times the memory of a slot."""


class ImageDiffusionModel:
    """A Stable Diffusion model: prompts in, pictures out, and each step between by its own name.

    The parts are a StableDiffusionPipeline's own; they are moved to `device` and converted to `precision` in
    place. `device` None is CUDA where there is one, else the CPU. `compiled` runs the UNet through
    torch.compile, `channels_last` keeps its images in that memory format. Both schedulers get the two
    settings that the pipeline forces on its own (`correct_scheduler`); they are compiled to tables, so a call
    leaves no state in them. Not thread-safe, as no diffusers model is. Raises ModelError for a UNet that is
    not made for plain text to image.
    """

    def __init__(
        self,
        vae: Any,
        tokenizer: Any,
        text_encoder: Any,
        unet: Any,
        scheduler_LMS: Any,
        scheduler_DDIM: Any,
        *,
        device: str | torch.device | None = None,
        precision: str = "auto",
        compiled: bool = False,
        channels_last: bool = False,
    ) -> None:
        channels, wanted = unet.config.in_channels, vae.config.latent_channels
        if channels != wanted or unet.config.time_cond_proj_dim is not None:
            raise ModelError(
                f"unet: {channels} input channels for {wanted} latent channels, time_cond_proj_dim = "
                f"{unet.config.time_cond_proj_dim}: use a text-to-image model, not inpainting and not an LCM"
            )
        self.vae = vae.eval()
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder.eval()
        self.unet = unet.eval()
        self.scheduler_LMS = correct_scheduler(scheduler_LMS)
        self.scheduler_DDIM = correct_scheduler(scheduler_DDIM)
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self._texts = TextEmbeds(tokenizer, text_encoder)
        self._remembered = RememberedTexts()
        encoder = self._remembered.encoder("text_encoder", text_encoder)
        self._own = OwnEmbeds([ClipEncoder(tokenizer, encoder)], self.device)
        self.options = tuple(
            name for name, on in {"compiled": compiled, "channels last": channels_last}.items() if on
        )
        """How the UNet runs, where bytes may depend on it."""
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.unet.to(memory_format=self._memory_format)
        self._forward = compile_by_shape(self.unet) if compiled else self.unet
        self._compiled = CompiledSchedulers(self._scheduler)
        self._convert(self.precision)

    def get_text_embeds(
        self, text: str | Sequence[str], *, batch: int | None = None, ahead: Sequence[str] = ()
    ) -> torch.Tensor:
        """The text encoder's last hidden states of B texts: [B,L,D]; see `TextEmbeds.get`."""
        texts = [text] if isinstance(text, str) else list(text)
        return self._texts.get(texts, self.precision, self.device, batch=batch, ahead=ahead)

    def get_prompt_embeds(
        self, prompt: str | Sequence[str], negative_prompt: str | Sequence[str] = ""
    ) -> torch.Tensor:
        """The embeddings that guidance needs: [2B,L,D], the B negative prompts first, then the B prompts."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = _per_image("negative_prompt", negative_prompt, len(prompts))
        return torch.cat([self.get_text_embeds(negatives), self.get_text_embeds(prompts)])

    def get_img_latents(
        self,
        text_embeds: torch.Tensor,
        height: int = 512,
        width: int = 512,
        num_inference_steps: int = 50,
        guidance_scale: float | Sequence[float] = 7.5,
        img_latents: Latents | Sequence[Latents | None] | None = None,
        *,
        seeds: int | Sequence[int] | None = None,
        scheduler: str | Sequence[str] = "LMS",
        batch_size: int | None = None,
        progress: bool = False,
    ) -> torch.Tensor:
        """Denoise B images together: float32 [B,C,height/f,width/f] on the model's device.

        text_embeds: [2B,L,D] of `get_prompt_embeds`. height, width: pixels, multiples of 8.
        guidance_scale, scheduler: one, or one an image; an image whose scale is not above 1 is not guided.
        img_latents: standard-normal initial latents [B,C,height/f,width/f], as for diffusers' `latents=`:
        their values are used as they are, and scaled by the scheduler like noise of its own. In a list, None
        stands for noise. Noise comes from a CPU generator of each image's own seed; no seeds are fresh ones.
        batch_size: slots of one UNet forward, at least what one image takes; None is what the
        images need, at most 32. Bytes may differ between them.
        progress shows a tqdm bar of the images' forwards on stderr.

        Raises RenderError for a setting out of range, LatentsError for latents of another shape.
        """
        count = len(text_embeds) // 2
        _check_size("height", height)
        _check_size("width", width)
        seeds = self._fresh_seeds(count) if seeds is None else _per_image("seeds", seeds, count)
        scales = _per_image("guidance_scale", guidance_scale, count)
        names = _per_image("scheduler", scheduler, count)
        starts = self._latents_of(img_latents, count, height, width)
        negative, prompt = text_embeds.to(self.device).chunk(2)
        images = [
            self.latent_image(
                index,
                prompt[index],
                negative[index] if scales[index] > 1.0 else None,
                Sampling(height, width, num_inference_steps, scales[index], names[index], seeds[index]),
                starts[index],
            )
            for index in range(count)
        ]
        waiting = queue_of((image, image.slots, image.table.forwards) for image in images)
        needed = sum(image.slots for image in images)
        most = max((image.slots for image in images), default=1)
        if batch_size is not None and batch_size < most:
            raise RenderError(
                f"batch_size = {batch_size}: must be at least {most}: one image takes that many slots"
            )
        denoiser = self.denoiser(
            height, width, max(most, min(needed, _MOST_SLOTS)) if batch_size is None else batch_size
        )
        latents: dict[int, torch.Tensor] = {}
        total = sum(image.table.forwards for image in images)
        with tqdm(total=total, disable=not progress, unit="step") as bar:
            for finished in sample(denoiser, waiting.take):
                latents |= {image.key: latent for image, latent in finished}
                bar.update(denoiser.running + len(finished))
        return torch.stack([latents[index] for index in range(count)])

    @property
    def window(self) -> int:
        """The tokens that the text encoder takes at a time."""
        return self._texts.shape[0]

    def own_embeds(self, request: ImageRequest) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The embeddings [n*L,D] of a request with weights or long texts; see `OwnEmbeds.of`."""
        with self.precision.computing(self.device):
            prompt, negative = self._own.of(request)
        dtype = self.precision.weights
        return prompt.tokens.to(dtype), None if negative is None else negative.tokens.to(dtype)

    def prompt_cut(self, request: ImageRequest) -> str | None:
        """What the text encoder does not get of a request's texts; None where it gets all."""
        if request.own_embeds:
            return self._own.told(request)
        negative = request.negative_prompt if request.guided else ""
        return told_cut(self._texts.left_out(request.prompt), self._texts.left_out(negative))

    def denoiser(
        self, height: int, width: int, slots: int, *, padded: bool = True, tokens: int | None = None
    ) -> Denoiser:
        """Slots for images of one size, in pixels, and of texts of so many tokens, by default the encoder's
        window; see `Denoiser`."""
        window, features = self._texts.shape
        return Denoiser(
            self._forward,
            self._latents_shape(height, width),
            (window if tokens is None else tokens, features),
            slots,
            device=self.device,
            dtype=self.precision.weights,
            computing=partial(self.precision.computing, self.device),
            padded=padded,
            memory_format=self._memory_format,
        )

    def latent_image(
        self,
        key: Any,
        prompt_embeds: torch.Tensor,
        negative_embeds: torch.Tensor | None,
        sampling: Sampling,
        latents: Latents | None = None,
    ) -> LatentImage:
        """One image as the denoiser takes it: its noise drawn, its scheduler compiled.

        prompt_embeds, negative_embeds: [L,D]; no negative_embeds: unguided. latents: [C,h,w], or None for the
        seed's own. Raises as `get_img_latents`.
        """
        steps, height, width = sampling.num_inference_steps, sampling.height, sampling.width
        if steps < 1:
            raise RenderError(f"num_inference_steps = {steps}: must be at least 1")
        table = self.scheduler_table(sampling.scheduler, steps)
        stepper = None
        if table.coefficients is None:
            stepper = self._scheduler(sampling.scheduler)
            stepper.set_timesteps(steps, device=self.device)
        generator = torch.Generator().manual_seed(sampling.seed)
        [own] = self._latents_of(None if latents is None else [latents], 1, height, width)
        start = torch.randn(self._latents_shape(height, width), generator=generator) if own is None else own
        return LatentImage(
            key, start, prompt_embeds, negative_embeds, sampling.guidance_scale, table, stepper, generator
        )

    def scheduler_table(self, scheduler: str, num_inference_steps: int) -> SchedulerTable:
        """The sampler of this name on the model's noise schedule, compiled for so many steps; see
        `CompiledSchedulers.table`."""
        return self._compiled.table(scheduler, num_inference_steps)

    @torch.no_grad()
    def decode_img_latents(self, img_latents: torch.Tensor) -> torch.Tensor:
        """The VAE's pictures of latents [B,C,h,w]: float32 [B,3,H,W], about -1 .. 1."""
        latents = img_latents.to(self.device, self.precision.vae)
        decoded: torch.Tensor = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[
            0
        ]
        return decoded.float()

    def transform_imgs(self, imgs: torch.Tensor) -> list[Image.Image]:
        """PIL images of decoded pictures [B,3,H,W]."""
        return [Image.fromarray(pixels) for pixels in to_pixels(imgs).cpu().numpy()]

    def prompt_to_img(
        self,
        prompts: str | Sequence[str],
        height: int = 512,
        width: int = 512,
        num_inference_steps: int = 50,
        guidance_scale: float | Sequence[float] = 7.5,
        img_latents: Latents | Sequence[Latents | None] | None = None,
        *,
        negative_prompts: str | Sequence[str] = "",
        seeds: int | Sequence[int] | None = None,
        scheduler: str | Sequence[str] = "LMS",
        batch_size: int | None = None,
        progress: bool = True,
    ) -> list[Image.Image]:
        """Paint each prompt: PIL images in the prompts' order, equal to StableDiffusionPipeline's.

        Guidance scale, negative prompt, seed and scheduler are one for all, or one a prompt; all are sampled
        together, even if their settings differ. The rest is as in `get_img_latents`. progress shows a tqdm
        bar of forwards on stderr.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts:
            return []
        negatives = _per_image("negative_prompts", negative_prompts, len(texts))
        latents = self.get_img_latents(
            self.get_prompt_embeds(texts, negatives),
            height,
            width,
            num_inference_steps,
            guidance_scale,
            img_latents,
            seeds=seeds,
            scheduler=scheduler,
            batch_size=batch_size,
            progress=progress,
        )
        parts = torch.split(latents, _DECODED_TOGETHER)
        return [image for part in parts for image in self.transform_imgs(self.decode_img_latents(part))]

    @contextlib.contextmanager
    def in_fp32(self) -> Iterator[None]:
        """Everything inside runs in float32. Half-precision weights go up and come back bit for bit."""
        before, forward = self.precision, self._forward
        self._forward = self.unet  # a compiled one would be compiled again, and once more for the way back
        try:
            # Memory may run out with half of the weights converted: that is taken back too.
            self._convert(resolve_precision("fp32", self.device))
            yield
        finally:
            self._forward = forward
            self._convert(before)

    def forget_texts(self) -> None:
        """Drops every text's embedding: the tokenizer or the text encoder gives something else now."""
        self._remembered.forget()
        self._texts.forget()

    def _convert(self, precision: Precision) -> None:
        self._remembered.forget()
        # torch's own `to`: diffusers' warns at every dtype of modules to be kept in float32, also of none.
        torch.nn.Module.to(self.unet, self.device, precision.weights)
        torch.nn.Module.to(self.text_encoder, self.device, precision.weights)
        torch.nn.Module.to(self.vae, self.device, precision.vae)
        self.precision = precision

    def _scheduler(self, name: str) -> Any:
        match find_scheduler(name).name:
            case "LMS":
                return copy.deepcopy(self.scheduler_LMS)
            case "DDIM":
                return copy.deepcopy(self.scheduler_DDIM)
            case other:
                return build_scheduler(other, self.scheduler_LMS.config)

    @staticmethod
    def _fresh_seeds(count: int) -> list[int]:
        # torch's own generator, so that torch.manual_seed still rules a script that names no seeds.
        return [int(seed) for seed in torch.randint(2**63 - 1, (count,))]

    def _latents_of(
        self, img_latents: Latents | Sequence[Latents | None] | None, count: int, height: int, width: int
    ) -> list[torch.Tensor | None]:
        if img_latents is None:
            return [None] * count
        shape = self._latents_shape(height, width)
        latents = [None if one is None else _float32(one) for one in img_latents]
        if len(latents) != count or any(one is not None and tuple(one.shape) != shape for one in latents):
            whole = getattr(img_latents, "shape", None)
            each = [None if one is None else tuple(one.shape) for one in latents]
            given = each if whole is None else tuple(whole)
            raise LatentsError(
                f"img_latents: shape {given}: for {counted(count, 'image')} of {height} x {width} pixels "
                f"this model takes {(count, *shape)}"
            )
        return latents

    def _latents_shape(self, height: int, width: int) -> tuple[int, int, int]:
        factor = self.vae_scale_factor
        return (int(self.unet.config.in_channels), height // factor, width // factor)


def compile_by_shape(unet: Any) -> Any:
    """The UNet with a graph for each shape: what a shape becomes does not depend on those before it."""
    graph_for_each_shape()
    return torch.compile(unet, dynamic=False)


def to_pixels(imgs: torch.Tensor) -> torch.Tensor:
    """Decoded pictures [B,3,H,W], -1 .. 1, as uint8 [B,H,W,3] on the same device; NaN becomes 0."""
    unit = (imgs.detach().float() * 0.5 + 0.5).nan_to_num(0.0).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _float32(latents: Latents) -> torch.Tensor:
    if isinstance(latents, torch.Tensor):
        return latents.to("cpu", torch.float32)
    # np.array copies: torch warns of the read-only arrays that a mapped file gives.
    return torch.from_numpy(np.array(latents, np.float32))


def _check_size(name: str, pixels: int) -> None:
    if pixels < 8 or pixels % 8:
        raise RenderError(f"{name} = {pixels}: {must_be_multiple(pixels, 8)}")


def _per_image(name: str, value: Any, count: int) -> list[Any]:
    """One value for each image, from one for all or a list of them."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise RenderError(
            f"{name}: {counted(len(value), 'value')} for {counted(count, 'image')}: give one for all, or one "
            "for each image"
        )
    return list(value)
