"""Stable Diffusion XL, 3 and FLUX.1 by interception on a GPU, with random weights, against diffusers.

    python benchmarks/gpu_pipelines.py [sdxl] [sd3] [flux] [--steps N] [--slots N] [--seconds S] [--compile]
                                       [--channels-last]
    python benchmarks/gpu_pipelines.py --toy      (tiny pipelines, without a GPU)

As benchmarks/gpu.py does it for Stable Diffusion 1.4: the networks are built on the device in bfloat16 from
the published configurations, nothing is downloaded. Tokenizers are small ones of the tests: every text is
padded to the published length in any case. Of each pipeline, in turn:

1. the ceiling: images a second if nothing but full forwards of the denoiser took time;
2. byte identity: pictures of mixed steps and guidance alone, in order, and turned round among others;
3. images a second until the last PNG is on disk: by interception, and by diffusers' pipeline one by one; the
   share of the ceiling is the first divided by 1;
4. with --compile, 1 to 3 once more through torch.compile, in another renderer of the same pipeline.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

# A script's own folder is on the path, the repository's is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers
import numpy as np
import torch
import transformers
from painting import Painted, by_renderer, median_seconds, save_all, synchronize
from published_pipelines import MODELS, build

from jobs.arguments import arguments_of, arguments_text
from jobs.request import ImageRequest
from tests.tiny.families import FAMILIES
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Bucket, Pipeline
from worker.renderers.pipeline_renderer import PipelineRenderer

PROMPTS: Final = ("a cat", "a photograph of an old lighthouse at night, waves", "x", "two dogs, oil painting")


def by_interception(
    renderer: PipelineRenderer, slots: int, requests: Sequence[ImageRequest], seconds: float = float("inf")
) -> Painted:
    """Pictures by the product's renderer, in the order in which they end."""
    one = requests[0]
    bucket = Bucket(Pipeline("random", "random", renderer.precision), one.height, one.width, slots)
    return by_renderer(renderer, bucket, requests, seconds)


def by_diffusers(pipeline: Any, requests: Sequence[ImageRequest], seconds: float = float("inf")) -> Painted:
    """Pictures by diffusers' own call, one by one."""
    ends = time.perf_counter() + seconds
    for request in requests:
        if time.perf_counter() > ends:
            return
        [image] = pipeline(
            request.prompt,
            height=request.height,
            width=request.width,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
            **arguments_of(request.arguments),
        ).images
        yield np.asarray(image), request


def forward_seconds(renderer: PipelineRenderer, slots: int, request: ImageRequest) -> float:
    """Seconds of a forward of the denoiser with all slots, of arguments as a request's."""
    pipeline = renderer.pipeline
    denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    given: list[dict[str, Any]] = []
    hook = denoiser.register_forward_pre_hook(
        lambda _module, _args, named: given.append(named), with_kwargs=True
    )
    list(by_interception(renderer, slots, [replace(request, num_inference_steps=1)]))
    hook.remove()
    with torch.no_grad():
        return median_seconds(lambda: denoiser(**given[-1]), pipeline.device)


def identical(renderer: PipelineRenderer, slots: int, requests: Sequence[ImageRequest]) -> float:
    """The share of pictures whose pixels are the same alone, in order and turned round."""

    def paint(group: Sequence[ImageRequest]) -> dict[int, bytes]:
        return {one.seed: pixels.tobytes() for pixels, one in by_interception(renderer, slots, group)}

    mixed = [
        replace(
            one,
            prompt=PROMPTS[number % len(PROMPTS)],
            num_inference_steps=2 + number % 3,
            guidance_scale=(one.guidance_scale, 1.0, 3.0)[number % 3],
        )
        for number, one in enumerate(requests)
    ]
    together, turned = paint(mixed), paint(mixed[::-1])
    alone: dict[int, bytes] = {}
    for one in mixed[:4]:
        alone |= paint([one])
    same = [together[seed] == turned[seed] == alone.get(seed, together[seed]) for seed in together]
    return sum(same) / len(same)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one pipeline."""
    model, device = MODELS[name], torch.device(options.device)
    precision = resolve_precision("auto", device)
    if options.toy:
        family = FAMILIES[model.class_name]
        pipeline, size, arguments = family.build().to(device), family.height, dict(family.arguments)
        arguments.pop("true_cfg_scale", None)  # FLUX is guided by its embedding
    else:
        pipeline, size, arguments = build(model, device, precision.weights), 1024, {}
    pipeline.set_progress_bar_config(disable=True)

    def new_renderer(*, compiled: bool) -> PipelineRenderer:
        return PipelineRenderer(
            pipeline,
            precision=precision,
            device=device,
            model=name,
            revision="random",
            compiled=compiled,
            channels_last=options.channels_last,
        )

    renderer = new_renderer(compiled=False)
    slots: int = renderer.measure_slots(size, size) if options.slots is None else options.slots
    steps: int = model.steps if options.steps is None else options.steps
    one = ImageRequest(
        prompt="",
        height=size,
        width=size,
        num_inference_steps=steps,
        guidance_scale=model.guidance,
        scheduler="default",
        seed=0,
        model=name,
        revision="random",
        arguments=arguments_text(arguments),
    )
    taken = renderer.slots(one)
    count = (2 if options.toy else 4) * max(1, slots // taken)
    requests = [replace(one, prompt=f"a picture of number {n}", seed=n) for n in range(count)]
    forward = forward_seconds(renderer, slots, requests[0])
    ceiling = slots / (taken * steps * forward)
    same = identical(renderer, slots, requests)
    arms: dict[str, Callable[..., Iterator[tuple[np.ndarray, ImageRequest]]]] = {
        "interception": lambda few, **limit: by_interception(renderer, slots, few, **limit),
        "diffusers, one by one": lambda few, **limit: by_diffusers(pipeline, few, **limit),
    }
    rates = {}

    def time_arm(arm: str, paint: Callable[..., Painted]) -> None:
        save_all(paint([replace(each, num_inference_steps=2) for each in requests[:2]]))
        synchronize(device)
        done, seconds = save_all(paint(requests, seconds=options.seconds))
        rates[arm] = done / seconds
        print(f"{name:<6} {arm:<24} {done:5d} images {seconds:8.2f} s {rates[arm]:8.3f} images/s", flush=True)

    for arm, paint in arms.items():
        time_arm(arm, paint)
    compiled: dict[str, Any] = {}
    if options.compile:  # last: the modules are compiled in place
        faster = new_renderer(compiled=True)
        compiled = {
            "forward_s_compiled": forward_seconds(faster, slots, requests[0]),
            "identical_compiled": identical(faster, slots, requests),
        }
        time_arm("interception, compiled", lambda few, **limit: by_interception(faster, slots, few, **limit))
    return {
        "batching": renderer.batching,
        "size": size,
        "steps": steps,
        "slots": slots,
        "forward_s": forward,
        "images_per_s": rates,
        "images_per_s_ceiling": ceiling,
        "share_of_ceiling": rates["interception"] / ceiling,
        "speed_vs_one": rates["interception"] / rates["diffusers, one by one"],
        "identical": same,
        **compiled,
    }


def main() -> None:
    """Prints a line an arm and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", help=f"{', '.join(MODELS)}; all of them")
    parser.add_argument("--toy", action="store_true", help="tiny pipelines, 64x64")
    parser.add_argument("--device", help="cuda where there is one; cpu has to be asked for, or --toy")
    parser.add_argument("--slots", type=int, help="of a forward; else as the product's own rule says")
    parser.add_argument("--steps", type=int, help="else 30 for SDXL, 28 for SD3 and FLUX")
    parser.add_argument("--compile", action="store_true", help="one more arm: through torch.compile")
    parser.add_argument("--channels-last", action="store_true", help="interception in that memory format")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="after which an arm takes nothing new; 60"
    )
    options = parser.parse_args()
    if unknown := set(options.models) - set(MODELS):
        parser.error(f"{', '.join(sorted(unknown))}: use {', '.join(MODELS)}")
    if options.device is None:
        if not torch.cuda.is_available() and not options.toy:
            parser.error("there is no CUDA device: say --toy for tiny pipelines, or --device cpu for days")
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # what is learned of random weights is no worker's to read
        measured = {name: measure(name, options) for name in options.models or MODELS}
    print(json.dumps({"device": options.device, "models": measured}))


if __name__ == "__main__":
    main()
