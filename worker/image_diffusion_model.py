"""A Stable Diffusion model and its named steps, from prompts to pictures."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from jobs.errors import LatentsError, ModelError, RenderError
from jobs.schedulers import find_scheduler
from worker.precision import Precision, resolve_device, resolve_precision
from worker.sampling import sample
from worker.schedulers import build_scheduler, correct_scheduler
from worker.text_embeds import TextEmbeds

Latents = torch.Tensor | np.ndarray
OnStep = Callable[[int, int], None]


class ImageDiffusionModel:
    """A Stable Diffusion model: prompts in, pictures out, and each step between by its own name.

    The parts are a StableDiffusionPipeline's own; they are moved to `device` and converted to `precision` in
    place. `device` None is CUDA where there is one, else the CPU. Both schedulers get the two settings that
    the pipeline forces on its own (`correct_scheduler`); each call samples with a copy, so a call leaves no
    state behind. Not thread-safe, as no diffusers model is. Raises ModelError for a UNet that is not made for
    plain text to image.
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
        self._convert(self.precision)

    def get_text_embeds(self, text: str | Sequence[str]) -> torch.Tensor:
        """The text encoder's last hidden states of B texts: [B,77,D]; see `TextEmbeds.get`."""
        return self._texts.get([text] if isinstance(text, str) else list(text), self.precision, self.device)

    def get_prompt_embeds(
        self, prompt: str | Sequence[str], negative_prompt: str | Sequence[str] = ""
    ) -> torch.Tensor:
        """The embeddings that guidance needs: [2B,77,D], the B negative prompts first, then the B prompts."""
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
        scheduler: str = "LMS",
        on_step: OnStep | None = None,
    ) -> torch.Tensor:
        """Denoise B images together: float32 [B,C,height/f,width/f] on the model's device.

        text_embeds: [2B,77,D] of `get_prompt_embeds`. height, width: pixels, multiples of 8.
        guidance_scale: one, or one an image; where none is above 1 the negative half is not run at all.
        img_latents: standard-normal initial latents [B,C,height/f,width/f], as for diffusers' `latents=`:
        their values are used as they are, and scaled by the scheduler like noise of its own. In a list, None
        stands for noise. Noise comes from a CPU generator of each image's own seed; no seeds are fresh ones.
        on_step: see `worker.sampling.sample`.

        Raises RenderError for a setting out of range, LatentsError for latents of another shape.
        """
        count = len(text_embeds) // 2
        _check_size("height", height)
        _check_size("width", width)
        if num_inference_steps < 1:
            raise RenderError(f"num_inference_steps = {num_inference_steps}: must be at least 1")
        if seeds is None:
            # torch's own generator, so that torch.manual_seed still rules a script that names no seeds.
            seeds = [int(seed) for seed in torch.randint(2**63 - 1, (count,))]
        generators = [torch.Generator().manual_seed(seed) for seed in _per_image("seeds", seeds, count)]
        latents = self._initial_latents(img_latents, height, width, generators)
        scales = _per_image("guidance_scale", guidance_scale, count)
        negative, prompt = text_embeds.to(self.device).chunk(2)
        with self.precision.computing(self.device):
            return sample(
                self.unet,
                self._scheduler(scheduler),
                latents,
                prompt,
                negative if max(scales) > 1.0 else None,
                guidance_scales=torch.tensor(scales, dtype=torch.float32),
                generators=generators,
                num_inference_steps=num_inference_steps,
                on_step=on_step,
            )

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
        return [Image.fromarray(pixels) for pixels in to_pixels(imgs)]

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
        progress: bool = True,
    ) -> list[Image.Image]:
        """Paint each prompt: PIL images in the prompts' order, equal to StableDiffusionPipeline's.

        Guidance scale, negative prompt, seed and scheduler are one for all, or one a prompt; prompts with the
        same scheduler, guided alike, are sampled together. The rest is as in `get_img_latents`. progress
        shows a tqdm bar of steps on stderr.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        count = len(texts)
        scales = _per_image("guidance_scale", guidance_scale, count)
        negatives = _per_image("negative_prompts", negative_prompts, count)
        names = [find_scheduler(name).name for name in _per_image("scheduler", scheduler, count)]
        fresh = [int(seed) for seed in torch.randint(2**63 - 1, (count,))] if seeds is None else seeds
        all_seeds = _per_image("seeds", fresh, count)
        starts = self._rows_of(img_latents, count, height, width)

        groups: dict[tuple[str, bool], list[int]] = {}
        for index in range(count):
            groups.setdefault((names[index], scales[index] > 1.0), []).append(index)
        images: dict[int, Image.Image] = {}
        with tqdm(total=num_inference_steps * len(groups), disable=not progress, unit="step") as bar:
            for number, ((name, guided), members) in enumerate(groups.items()):

                def show(done: int, total: int, before: int = number * num_inference_steps) -> None:
                    # Heun, DPM2 and PNDM run more forwards than steps.
                    bar.update(before + done * num_inference_steps // total - bar.n)

                embeds = self.get_prompt_embeds(
                    [texts[i] for i in members], [negatives[i] for i in members] if guided else ""
                )
                latents = self.get_img_latents(
                    embeds,
                    height,
                    width,
                    num_inference_steps,
                    [scales[i] for i in members],
                    [starts[i] for i in members],
                    seeds=[all_seeds[i] for i in members],
                    scheduler=name,
                    on_step=show,
                )
                pictures = self.transform_imgs(self.decode_img_latents(latents))
                images.update(zip(members, pictures, strict=True))
        return [images[index] for index in range(count)]

    @contextlib.contextmanager
    def in_fp32(self) -> Iterator[None]:
        """Everything inside runs in float32. Half-precision weights go up and come back bit for bit."""
        before = self.precision
        try:
            # Memory may run out with half of the weights converted: that is taken back too.
            self._convert(resolve_precision("fp32", self.device))
            yield
        finally:
            self._convert(before)

    def _convert(self, precision: Precision) -> None:
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

    def _initial_latents(
        self,
        img_latents: Latents | Sequence[Latents | None] | None,
        height: int,
        width: int,
        generators: Sequence[torch.Generator],
    ) -> torch.Tensor:
        shape = self._latents_shape(height, width)
        rows = [
            torch.randn(shape, generator=generator) if row is None else row
            for row, generator in zip(
                self._rows_of(img_latents, len(generators), height, width), generators, strict=True
            )
        ]
        return torch.stack(rows).to(self.device)

    def _rows_of(
        self, img_latents: Latents | Sequence[Latents | None] | None, count: int, height: int, width: int
    ) -> list[torch.Tensor | None]:
        if img_latents is None:
            return [None] * count
        shape = self._latents_shape(height, width)
        rows = [None if row is None else _float32(row) for row in img_latents]
        if len(rows) != count or any(row is not None and tuple(row.shape) != shape for row in rows):
            whole = getattr(img_latents, "shape", None)
            each = [None if row is None else tuple(row.shape) for row in rows]
            given = each if whole is None else tuple(whole)
            raise LatentsError(
                f"img_latents: shape {given}: for {count} images of {height} x {width} pixels this model "
                f"takes {(count, *shape)}"
            )
        return rows

    def _latents_shape(self, height: int, width: int) -> tuple[int, int, int]:
        factor = self.vae_scale_factor
        return (int(self.unet.config.in_channels), height // factor, width // factor)


def to_pixels(imgs: torch.Tensor) -> np.ndarray:
    """Decoded pictures [B,3,H,W], -1 .. 1, as uint8 [B,H,W,3] on the host; NaN becomes 0."""
    unit = (imgs.detach().float() * 0.5 + 0.5).nan_to_num(0.0).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _float32(latents: Latents) -> torch.Tensor:
    if isinstance(latents, torch.Tensor):
        return latents.to("cpu", torch.float32)
    # np.array copies: torch warns of the read-only arrays that a mapped file gives.
    return torch.from_numpy(np.array(latents, np.float32))


def _check_size(name: str, pixels: int) -> None:
    if pixels < 8 or pixels % 8:
        low = max(8, pixels // 8 * 8)
        raise RenderError(f"{name} = {pixels}: must be a multiple of 8 ({low} or {low + 8})")


def _per_image(name: str, value: Any, count: int) -> list[Any]:
    """One value for each image, from one for all or a list of them."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise RenderError(
            f"{name}: {len(value)} values for {count} images: give one for all, or one an image"
        )
    return list(value)
