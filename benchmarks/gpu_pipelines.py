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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

# A script's own folder is on the path, the repository's is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers
import numpy as np
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from gpu import Asked, Painted, median_seconds, save_all, synchronize
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from jobs.arguments import arguments_of, arguments_text
from jobs.errors import ImagemillError
from jobs.request import ImageRequest
from tests.tiny.families import FAMILIES
from tests.tiny.trained_tokenizers import clip_tokenizer, t5_tokenizer
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Bucket, Pipeline
from worker.renderers.pipeline_renderer import PipelineRenderer

PROMPTS: Final = ("a cat", "a photograph of an old lighthouse at night, waves", "x", "two dogs, oil painting")


@dataclass(frozen=True, slots=True)
class Model:
    """A pipeline of published size, and what it is usually called with."""

    class_name: str
    build: Callable[[], Any]
    """On torch's default device and in its default number format, without a scheduler."""
    scheduler: Callable[[], Any]
    steps: int
    guidance: float


def sdxl() -> StableDiffusionXLPipeline:
    """The configurations of stabilityai/stable-diffusion-xl-base-1.0."""
    first, second = clip_tokenizer(), clip_tokenizer()
    return StableDiffusionXLPipeline(
        vae=_autoencoder(4, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_clip_l(first)),
        tokenizer=first,
        text_encoder_2=CLIPTextModelWithProjection(_clip_big_g(second)),
        tokenizer_2=second,
        unet=UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            use_linear_projection=True,
        ),
        scheduler=None,
        add_watermarker=False,
    )


def sd3() -> StableDiffusion3Pipeline:
    """The configurations of stabilityai/stable-diffusion-3-medium-diffusers."""
    first, second, third = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    return StableDiffusion3Pipeline(
        vae=_autoencoder(
            16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(_clip_l(first)),
        tokenizer=first,
        text_encoder_2=CLIPTextModelWithProjection(_clip_big_g(second)),
        tokenizer_2=second,
        text_encoder_3=_t5_xxl(),
        tokenizer_3=third,
        transformer=SD3Transformer2DModel(
            sample_size=128,
            in_channels=16,
            out_channels=16,
            num_layers=24,
            attention_head_dim=64,
            num_attention_heads=24,
            joint_attention_dim=4096,
            caption_projection_dim=1536,
            pooled_projection_dim=2048,
            pos_embed_max_size=192,
        ),
        scheduler=None,
    )


def flux() -> FluxPipeline:
    """The configurations of black-forest-labs/FLUX.1-dev, which are the defaults of its transformer."""
    first, second = clip_tokenizer(), t5_tokenizer()
    return FluxPipeline(
        vae=_autoencoder(
            16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(_clip_l(first)),
        tokenizer=first,
        text_encoder_2=_t5_xxl(),
        tokenizer_2=second,
        transformer=FluxTransformer2DModel(guidance_embeds=True),
        scheduler=None,
    )


def _autoencoder(channels: int, **others: Any) -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=1024,
        latent_channels=channels,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        **others,
    )


def _clip_l(tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
        hidden_act="quick_gelu",
        **_marks(tokenizer),
    )


def _clip_big_g(tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        projection_dim=1280,
        hidden_act="gelu",
        **_marks(tokenizer),
    )


def _marks(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _t5_xxl() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


def _euler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )


def _flow() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def _shifted_flow() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


MODELS: Final = {
    "sdxl": Model("StableDiffusionXLPipeline", sdxl, _euler, 30, 5.0),
    "sd3": Model("StableDiffusion3Pipeline", sd3, _flow, 28, 7.0),
    "flux": Model("FluxPipeline", flux, _shifted_flow, 28, 3.5),
}


def build(model: Model, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline with random weights, made on the device in the number format."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with device:
            pipeline = model.build()
    finally:
        torch.set_default_dtype(before)
    pipeline.register_modules(scheduler=model.scheduler())  # its noise levels stay in float32 on the host
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipeline


class Line:
    """Requests in the order given, as many as fit, none after `seconds`."""

    def __init__(self, renderer: PipelineRenderer, requests: Iterable[ImageRequest], seconds: float) -> None:
        self._slots = renderer.slots
        self._asked = [Asked(request) for request in requests]
        self._ends = time.perf_counter() + seconds

    def take(self, free_slots: int) -> list[Asked]:
        """The first that fit."""
        taken: list[Asked] = []
        while self._asked and time.perf_counter() < self._ends:
            free_slots -= self._slots(self._asked[0].request)
            if free_slots < 0:
                break
            taken.append(self._asked.pop(0))
        return taken

    def upcoming(self, count: int) -> list[Asked]:
        """The next ones."""
        return self._asked[:count]


def by_interception(
    renderer: PipelineRenderer, slots: int, requests: Sequence[ImageRequest], seconds: float = float("inf")
) -> Painted:
    """Pictures by the product's renderer, in the order in which they end."""
    one = requests[0]
    bucket = Bucket(Pipeline("random", "random", renderer.precision), one.height, one.width, slots)
    for outcomes in renderer.render(bucket, Line(renderer, requests, seconds), lambda: False):
        for asked, outcome in outcomes:
            if isinstance(outcome, ImagemillError):
                raise outcome
            if not outcome.finite:
                raise SystemExit("a picture is not finite: no figure would mean anything")
            yield outcome.pixels, asked.request


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
