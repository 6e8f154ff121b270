"""How near the engine comes to what a GPU can do, on Stable Diffusion 1.4 with random weights.

    python benchmarks/gpu.py [--precision bf16] [--batch-size N] [--compile] [--channels-last]
    python benchmarks/gpu.py --toy            (a tiny model, in seconds and without a GPU)

Needs torch, diffusers, transformers, numpy and Pillow, and no download: UNet, VAE and text encoder are built
from SD 1.4's configurations. In turn:

1. the ceiling: a large matrix product in the precision, the median rate;
2. the slot curve: seconds of a UNet forward and of the engine's whole step by slots, until memory runs out;
   and how often the host waits for the GPU inside a step, which should be never;
3. byte identity: pictures of mixed steps, schedulers and guidance painted alone, in order, shuffled and among
   others; the share of them with the same pixels every time;
4. images a second, guided, until the last PNG is on disk: the engine, and diffusers' own pipeline, one by one
   and eight at a time, without a safety checker. All paint with DDIM, and save with the same encoder in the
   same threads; every arm has been warmed up before;
5. FLOPs of an image, counted on the meta device, times images a second: the share of the ceiling.

Files go to the system's temporary folder (TMPDIR). Random pictures are noise: as PNG they are larger and
slower than photos. On an H200 it takes a few minutes. benchmarks/gpu_pipelines.py does as much for Stable
Diffusion XL and 3 and FLUX.1, which are rendered by interception. The last line is JSON; `goal` is the share
of the ceiling to reach, null for the toy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

# cuBLAS reads it when it starts, and may otherwise choose other algorithms from call to call.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# A script's own folder is on the path, the repository's is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers
import numpy as np
import PIL
import torch
import transformers
from painting import Painted, by_renderer, diffusers_pipeline, median_seconds, save_all
from sd14 import Parts, model_of, sd14, toy
from torch.utils.flop_counter import FlopCounterMode

from jobs.request import ImageRequest
from worker.diffusion.sampling_settings import Sampling
from worker.engine.renderer import Bucket, OutOfMemory, Pipeline
from worker.engine.slot_count import fewest_cheap_slots
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer

GOAL: Final = 0.6
"""Share of the ceiling at the first of `--steps`."""
GUIDANCE: Final = 7.5
TOGETHER: Final = 8
"""Images of a call of diffusers' pipeline in its batched arm."""
MIX: Final = ("DDIM", "Euler", "DPM++ 2M", "Euler a", "UniPC", "PNDM")
"""What byte identity is looked for among. Not LMS: diffusers' own asks for scipy."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What is measured, unless an option says otherwise."""

    size: int
    steps: tuple[int, ...]
    slots: tuple[int, ...]
    """Of the slot curve."""
    matrix: int
    """Side of the ceiling's matrices."""
    subjects: int
    """Pictures whose bytes are compared; 12 are two of each scheduler."""


FULL: Final = Scale(size=512, steps=(50, 20), slots=(1, 2, 4, 8, 16, 32, 64), matrix=8192, subjects=12)
TOY: Final = Scale(size=64, steps=(6, 3), slots=(1, 2, 4), matrix=256, subjects=3)


@dataclass(frozen=True, slots=True)
class SlotTime:
    """Seconds of a forward of the bare UNet, and of the engine's step, which has such a forward in it."""

    forward: float
    step: float


def ceiling(model: ImageDiffusionModel, side: int) -> float:
    """FLOP/s of a product of square matrices in the number format that the UNet computes in."""
    dtype = model.precision.autocast or model.precision.weights
    # Random: on zeros a GPU draws less power and runs faster.
    left, right = (torch.randn(side, side, device=model.device).to(dtype) for _ in range(2))
    return (
        2
        * side**3
        / median_seconds(lambda: left @ right, model.device, calls=20 if model.device.type == "cuda" else 1)
    )


def image_flops(parts: Parts, size: int, latents: tuple[int, ...], window: int) -> Callable[[int], int]:
    """FLOPs of a guided image by its number of steps. parts: on the meta device.

    Two UNet slots a step, one text (the negative prompt is encoded once for all), one decode; a
    multiplication and an addition are two.
    """

    def count(network: Callable[..., object], *inputs: torch.Tensor) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(*inputs)
        return int(counter.get_total_flops())

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    embeds = empty(1, window, parts.text_encoder.config.hidden_size)
    slot = count(parts.unet, empty(1, *latents), empty(1), embeds)
    decode = count(parts.vae.decode, empty(1, *latents))
    text = count(parts.text_encoder, empty(1, window, dtype=torch.int64))
    print(f"FLOPs: {slot:.4g} a UNet slot, {decode:.4g} a {size}x{size} decode, {text:.4g} a text")
    return lambda steps: 2 * steps * slot + decode + text


def filled_denoiser(model: ImageDiffusionModel, size: int, slots: int, schedulers: Sequence[str]) -> Any:
    """The engine's slots, each with an unguided image of 50 steps in it."""
    denoiser = model.denoiser(size, size, slots)
    [embeds] = model.get_text_embeds("")
    for seed, scheduler in zip(range(slots), itertools.cycle(schedulers), strict=False):
        sampling = Sampling(size, size, 50, guidance_scale=1.0, scheduler=scheduler, seed=seed)
        denoiser.enter(model.latent_image(None, embeds, None, sampling))
    return denoiser


def slot_time(model: ImageDiffusionModel, size: int, slots: int) -> SlotTime:
    """Seconds of a forward and of a step with so many slots. Raises torch.OutOfMemoryError."""
    denoiser = filled_denoiser(model, size, slots, ["DDIM"])
    weights, latents = model.precision.weights, latents_shape(model, size)
    inputs = torch.randn(slots, *latents, device=model.device).to(weights)
    if "channels last" in model.options:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    timesteps = torch.linspace(1, 981, slots, device=model.device)
    embeds = model.get_text_embeds([""]).expand(slots, -1, -1).contiguous()

    @torch.inference_mode()
    def forward() -> None:
        with model.precision.computing(model.device):
            model.unet(inputs, timesteps, encoder_hidden_states=embeds, return_dict=False)

    return SlotTime(median_seconds(forward, model.device), median_seconds(denoiser.step, model.device))


def slot_curve(model: ImageDiffusionModel, size: int, numbers: Sequence[int]) -> dict[int, SlotTime]:
    """Times by slots, as far as memory reaches."""
    print(f"\n{'slots':>6} {'forward s':>10} {'a slot s':>10} {'engine step s':>14}")
    curve: dict[int, SlotTime] = {}
    for slots in numbers:
        try:
            curve[slots] = at = slot_time(model, size, slots)
        except torch.OutOfMemoryError:
            print(f"{slots:6d} out of memory")
            break
        print(f"{slots:6d} {at.forward:10.4f} {at.forward / slots:10.4f} {at.step:14.4f}", flush=True)
    return curve


def slots_by(curve: dict[int, SlotTime]) -> int:
    """The slots that the product would choose by this curve."""

    def seconds(slots: int) -> float:
        if slots not in curve:
            raise OutOfMemory(f"{slots} slots")
        return curve[slots].step

    return fewest_cheap_slots(seconds)


def waits_in_a_step(model: ImageDiffusionModel, size: int, slots: int) -> list[str] | None:
    """Where the host waits for the GPU in 3 steps, as torch warns of it; None without CUDA."""
    if model.device.type != "cuda":
        return None
    denoiser = filled_denoiser(model, size, slots, ["DDIM", "Euler a"])
    denoiser.step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(3):
                denoiser.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)]


def latents_shape(model: ImageDiffusionModel, size: int) -> tuple[int, int, int]:
    side = size // model.vae_scale_factor
    return int(model.unet.config.in_channels), side, side


def requests_of(count: int, size: int, steps: int) -> list[ImageRequest]:
    """Guided images, each with a prompt of its own, so that no cache of texts helps."""
    return [
        ImageRequest(
            prompt=f"a picture of number {n}, drawn in colour",
            height=size,
            width=size,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            scheduler="DDIM",
            seed=n,
            model="random",
            revision="random",
        )
        for n in range(count)
    ]


def mixed_requests(count: int, size: int) -> list[ImageRequest]:
    """Images of 3 to 7 steps, guided and unguided, of all schedulers of `MIX`."""
    return [
        ImageRequest(
            prompt=f"a mixed picture of number {n}",
            height=size,
            width=size,
            num_inference_steps=3 + n % 5,
            guidance_scale=(GUIDANCE, 1.0, 3.0)[(n + n // len(MIX)) % 3],
            scheduler=MIX[n % len(MIX)],
            seed=1000 + n,
            model="random",
            revision="random",
        )
        for n in range(count)
    ]


def by_engine(
    model: ImageDiffusionModel, slots: int, requests: Sequence[ImageRequest], seconds: float = float("inf")
) -> Painted:
    """Pictures by the product, in the order in which they end."""
    size = requests[0].height
    bucket = Bucket(Pipeline("random", "random", model.precision.name), size, size, slots)
    return by_renderer(DiffusionRenderer(model), bucket, requests, seconds)


def by_diffusers(
    pipeline: Any,
    model: ImageDiffusionModel,
    together: int,
    requests: Sequence[ImageRequest],
    seconds: float = float("inf"),
) -> Painted:
    """Pictures by diffusers' pipeline, `together` a call."""
    ends = time.perf_counter() + seconds
    for start in range(0, len(requests), together):
        if time.perf_counter() > ends:
            return
        part = requests[start : start + together]
        with model.precision.computing(model.device):
            images = pipeline(
                [request.prompt for request in part],
                height=part[0].height,
                width=part[0].width,
                num_inference_steps=part[0].num_inference_steps,
                guidance_scale=GUIDANCE,
                generator=[torch.Generator().manual_seed(request.seed) for request in part],
            ).images
        yield from zip(map(np.asarray, images), part, strict=True)


def share_identical(engine: Callable[[], ImageDiffusionModel], slots: int, size: int, count: int) -> float:
    """The share of `count` pictures whose pixels are the same alone, in order, shuffled and among others."""

    def paint(*groups: Sequence[ImageRequest]) -> dict[str, bytes]:
        model = engine()  # a new one: the last one's cache of texts would hide what the text encoder does
        painted = itertools.chain.from_iterable(by_engine(model, slots, group) for group in groups)
        return {request.image_id: pixels.tobytes() for pixels, request in painted}

    # More than the slots hold: some of the subjects enter among images that are half done.
    everybody = mixed_requests(count + slots, size)
    subjects = everybody[:count]
    random.Random(0).shuffle(everybody)
    alone = paint(*([subject] for subject in subjects))
    if len(set(alone.values())) < count:
        raise SystemExit("different requests gave the same picture: to compare them would show nothing")
    arrangements = [
        paint(subjects),
        paint([each for each in everybody if each in subjects]),
        paint(everybody),
    ]
    same = [all(each[name] == pixels for each in arrangements) for name, pixels in alone.items()]
    return sum(same) / len(same)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="a tiny model, 64x64, 6 and 3 steps")
    parser.add_argument("--device", help="cuda where there is one; cpu has to be asked for, or --toy")
    parser.add_argument(
        "--precision", default="auto", help="auto (bf16 on CUDA, else fp32), bf16, fp16, amp, fp32"
    )
    parser.add_argument("--batch-size", type=int, help="of the engine's forwards; else as its own rule says")
    parser.add_argument("--images", type=int, help="of an engine's arm; else four times what its slots hold")
    parser.add_argument("--size", type=int, help="height and width in pixels; else 512")
    parser.add_argument("--steps", type=int, nargs="+", help="else 50 and 20")
    parser.add_argument(
        "--seconds", type=float, default=45.0, help="after which an arm takes nothing new; 45"
    )
    parser.add_argument("--compile", action="store_true", help="one more arm: the engine with torch.compile")
    parser.add_argument("--channels-last", action="store_true", help="for the UNet, in every arm")
    options = parser.parse_args(arguments)
    if options.device is None:
        if not torch.cuda.is_available() and not options.toy:
            parser.error("there is no CUDA device: say --toy for a tiny model, or --device cpu for hours")
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.batch_size is not None and options.batch_size < 2:
        parser.error(f"--batch-size {options.batch_size}: a guided image takes 2")
    if options.images is not None and options.images < 1:
        parser.error(f"--images {options.images}: at least 1")
    return options


def main() -> None:
    """Prints tables and, last, JSON."""
    options = parse_options()
    torch.backends.cudnn.benchmark = False  # it would choose algorithms again in every run
    torch.backends.cudnn.deterministic = True
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    device = torch.device(options.device)
    scale, make = (TOY, toy) if options.toy else (FULL, sd14)
    size: int = scale.size if options.size is None else options.size
    every_steps: Sequence[int] = scale.steps if options.steps is None else options.steps
    parts = make(device)
    kinds = {"engine": False, "engine, compiled": True} if options.compile else {"engine": False}
    engines = {
        name: partial(model_of, parts, options, device, compiled=compiled) for name, compiled in kinds.items()
    }
    model = engines["engine"]()

    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }
    renderer_device = DiffusionRenderer(model).device
    print(f"{renderer_device}; {model.precision.name}; {size}x{size}; {'toy' if options.toy else 'SD 1.4'}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    flops = image_flops(
        make(torch.device("meta")), size, latents_shape(model, size), model.tokenizer.model_max_length
    )
    top = ceiling(model, scale.matrix)
    print(f"ceiling: {top / 1e12:.4g} TFLOP/s, products of {scale.matrix}x{scale.matrix}", flush=True)

    curve = slot_curve(model, size, scale.slots)
    slots: int = slots_by(curve) if options.batch_size is None else options.batch_size
    waits = waits_in_a_step(model, size, slots)
    print(f"{slots} slots; the host waits in 3 steps: {'not on CUDA' if waits is None else waits or 'never'}")

    identical = {
        name: share_identical(engine, slots, size, scale.subjects) for name, engine in engines.items()
    }
    for name, share in identical.items():
        print(
            f"{name}: {share:.1%} of {scale.subjects} pictures have the same pixels in every company",
            flush=True,
        )

    images = 4 * (slots // 2) if options.images is None else options.images
    pipeline = diffusers_pipeline(model)
    arms: dict[str, tuple[Callable[..., Painted], int, int]] = {}
    """By name: what paints, its images, and those that warm it up."""
    for name, engine in engines.items():
        arms[name] = (partial(by_engine, engine(), slots), images, slots)
    for name, together, count in (("one by one", 1, 4), (f"{TOGETHER} at a time", TOGETHER, 2 * TOGETHER)):
        arms[f"diffusers, {name}"] = (partial(by_diffusers, pipeline, model, together), count, together)
    for paint, _count, warming in arms.values():
        save_all(paint(requests_of(warming, size, 2)))
    print(f"\n{'arm':<36} {'images':>6} {'seconds':>8} {'images/s':>9} {'of the ceiling':>15}")
    images_per_s: dict[str, float] = {}
    shares: dict[str, float] = {}
    for steps, (name, (paint, count, _warming)) in itertools.product(every_steps, arms.items()):
        done, seconds = save_all(paint(requests_of(count, size, steps), seconds=options.seconds))
        arm = f"{name}, {steps} steps"
        images_per_s[arm] = done / seconds
        shares[arm] = flops(steps) * done / seconds / top
        print(f"{arm:<36} {done:6d} {seconds:8.2f} {done / seconds:9.3f} {shares[arm]:15.1%}", flush=True)

    result = {
        "device": renderer_device,
        "model": "toy" if options.toy else "sd1.4, random weights",
        "precision": model.precision.name,
        "size": size,
        "slots": slots,
        "channels_last": options.channels_last,
        "versions": versions,
        "ceiling_tflops": top / 1e12,
        "tflop_per_image": {str(steps): flops(steps) / 1e12 for steps in every_steps},
        "slot_curve": {
            str(slots): {"forward_s": at.forward, "step_s": at.step} for slots, at in curve.items()
        },
        "waits_in_a_step": None if waits is None else len(waits),
        "images_per_s": images_per_s,
        "shares": shares,
        "share_of_ceiling": max(shares[f"{name}, {every_steps[0]} steps"] for name in engines),
        "identical": min(identical.values()),
        "goal": None if options.toy else GOAL,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
