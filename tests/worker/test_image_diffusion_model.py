from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LMSDiscreteScheduler, StableDiffusionPipeline
from PIL import Image

from jobs.errors import LatentsError, ManifestError, ModelError, RenderError, SettingsError
from jobs.schedulers import SCHEDULERS
from tests.tiny.stable_diffusion import stable_diffusion
from worker.diffusion.build_scheduler import build_scheduler
from worker.diffusion.precision import resolve_device
from worker.image_diffusion_model import ImageDiffusionModel, compile_by_shape
from worker.renderers.shapes_random import build

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPTS = ["a red circle", "two blue stars on the left"]
SIZE = {"height": 64, "width": 64}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def small() -> StableDiffusionPipeline:
    """A smaller one, for many images."""
    pipeline = stable_diffusion()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def model_of(pipe: Any, precision: str = "fp32") -> ImageDiffusionModel:
    return ImageDiffusionModel(
        vae=pipe.vae,
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        unet=pipe.unet,
        scheduler_LMS=LMSDiscreteScheduler(**BETAS),
        scheduler_DDIM=DDIMScheduler(**BETAS),
        device="cpu",
        precision=precision,
    )


@pytest.fixture(scope="module")
def model(pipe: Any) -> ImageDiffusionModel:
    return model_of(pipe)


def reference(pipe: Any, scheduler: Any) -> Any:
    """diffusers' pipeline over the same parts, made by its constructor around a scheduler of its own."""
    parts = {**pipe.components, "scheduler": scheduler}
    made = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def floats(model: ImageDiffusionModel, latents: torch.Tensor) -> np.ndarray:
    """[B,H,W,3], 0 .. 1, as diffusers' output_type="np"."""
    return (model.decode_img_latents(latents) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("name", ["LMS", "DDIM"])
def test_pictures_equal_diffusers_own_pipeline(
    pipe: Any, model: ImageDiffusionModel, name: str, guidance: float
) -> None:
    scheduler = LMSDiscreteScheduler(**BETAS) if name == "LMS" else DDIMScheduler(**BETAS)
    theirs = reference(pipe, scheduler)
    settings = {"num_inference_steps": 10, "guidance_scale": guidance, **SIZE}
    expected = theirs(PROMPTS, generator=generators(1, 2), output_type="np", **settings).images

    latents = model.get_img_latents(
        model.get_prompt_embeds(PROMPTS), seeds=[1, 2], scheduler=name, **settings
    )
    assert np.abs(floats(model, latents) - expected).max() <= 1e-5
    assert expected.std() > 0.05

    pictures = model.prompt_to_img(PROMPTS, seeds=[1, 2], scheduler=name, progress=False, **settings)
    assert all(is_rounded(np.asarray(one), its) for one, its in zip(pictures, expected, strict=True))


def is_rounded(picture: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the picture is these floats, each right to 1e-5, times 255 and rounded.

    On some processors other numbers of slots differ in their last bits, and a float may lie between two
    bytes.
    """
    return bool(np.abs(picture - expected * 255.0).max() <= 0.5 + 255 * 1e-5)


@pytest.mark.parametrize("name", ["LMS", "DDIM"])
def test_own_latents_give_what_diffusers_gives_for_them(
    pipe: Any, model: ImageDiffusionModel, name: str
) -> None:
    start = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(9))
    kept = start.clone()
    theirs = reference(pipe, LMSDiscreteScheduler(**BETAS) if name == "LMS" else DDIMScheduler(**BETAS))
    settings = {"num_inference_steps": 5, "guidance_scale": 7.5, **SIZE}
    expected = theirs(PROMPTS, latents=start, output_type="np", **settings).images
    embeds = model.get_prompt_embeds(PROMPTS)
    for given in (start, start.numpy(), [start[0], start[1].numpy()]):
        latents = model.get_img_latents(embeds, img_latents=given, scheduler=name, **settings)
        assert np.abs(floats(model, latents) - expected).max() <= 1e-5
    assert torch.equal(start, kept)


def test_negative_prompts_equal_diffusers(pipe: Any, model: ImageDiffusionModel) -> None:
    theirs = reference(pipe, LMSDiscreteScheduler(**BETAS))
    settings = {"num_inference_steps": 4, **SIZE}
    negatives = ["blurry", "a green square"]
    expected = theirs(
        PROMPTS, negative_prompt=negatives, generator=generators(1, 2), output_type="np", **settings
    ).images
    ours = model.prompt_to_img(PROMPTS, negative_prompts=negatives, seeds=[1, 2], progress=False, **settings)
    plain = model.prompt_to_img(PROMPTS, seeds=[1, 2], progress=False, **settings)
    for index in range(2):
        assert is_rounded(np.asarray(ours[index]), expected[index])
        assert not np.array_equal(np.asarray(ours[index]), np.asarray(plain[index]))


@pytest.fixture(scope="module")
def random_model(small: Any) -> ImageDiffusionModel:
    """The same parts, with both schedulers made of the pipeline's own."""
    return ImageDiffusionModel(
        *(getattr(small, name) for name in ("vae", "tokenizer", "text_encoder", "unet")),
        build_scheduler("LMS", small.scheduler.config),
        build_scheduler("DDIM", small.scheduler.config),
        device="cpu",
        precision="fp32",
    )


def test_every_sampler_in_one_mixed_call_equals_diffusers_pipeline_with_it_alone(
    small: Any, random_model: ImageDiffusionModel
) -> None:
    """Guided and unguided, nineteen samplers, 38 images in 32 slots: as if each had been by itself."""
    images = [(sampler, scale) for sampler in SCHEDULERS for scale in (1.0, 7.5)]
    latents = random_model.get_img_latents(
        random_model.get_prompt_embeds([f"a star {seed}" for seed in range(len(images))], "blurry"),
        32,
        32,
        6,
        [scale for _sampler, scale in images],
        seeds=range(len(images)),
        scheduler=[sampler.name for sampler, _scale in images],
        batch_size=16,
    )
    differences: dict[str, float] = {}
    for seed, (sampler, scale) in enumerate(images):
        table = random_model.scheduler_table(sampler.name, 6)
        assert table.coefficients is not None, f"{sampler.name}: {table.reason}"
        theirs = getattr(diffusers, sampler.class_name).from_config(small.scheduler.config, **sampler.options)
        expected = reference(small, theirs)(
            f"a star {seed}",
            negative_prompt="blurry",
            height=32,
            width=32,
            num_inference_steps=6,
            guidance_scale=scale,
            generator=generators(seed)[0],
            output_type="np",
        ).images[0]
        ours = floats(random_model, latents[seed : seed + 1])[0]
        differences[f"{sampler.name} at {scale}"] = float(np.abs(ours - expected).max())
        assert expected.std() > 0.05
    assert {name: apart for name, apart in differences.items() if not apart <= 1e-5} == {}


def test_a_scheduler_that_is_not_linear_runs_by_itself_among_others_and_equals_diffusers(
    pipe: Any, random_model: ImageDiffusionModel
) -> None:
    def thresholding() -> DDIMScheduler:
        # Not at most 1: thresholding then multiplies what a forward of other slots rounds, whoever runs it.
        config = random_model.scheduler_DDIM.config
        return DDIMScheduler.from_config(config, thresholding=True, sample_max_value=2.0)

    model = model_of(pipe)
    model.scheduler_LMS, model.scheduler_DDIM = random_model.scheduler_LMS, thresholding()
    table = model.scheduler_table("DDIM", 3)
    assert (table.reason, table.coefficients) == ("thresholding", None)
    names, scales = ["DDIM", "LMS", "DDIM", "Euler a"], [7.5, 3.0, 1.0, 2.0]
    prompts = [f"a star {seed}" for seed in range(4)]
    settings: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 3}
    mixed = model.get_img_latents(
        model.get_prompt_embeds(prompts), **settings, guidance_scale=scales, seeds=range(4), scheduler=names
    )
    for seed, (name, scale) in enumerate(zip(names, scales, strict=True)):
        theirs = thresholding() if name == "DDIM" else build_scheduler(name, pipe.scheduler.config)
        settings["guidance_scale"] = scale
        expected = reference(pipe, theirs)(
            prompts[seed], generator=generators(seed)[0], output_type="latent", **settings
        ).images
        apart = np.abs(floats(model, mixed[seed : seed + 1]) - floats(model, expected)).max()
        assert apart <= 1e-5, name
        if name == "DDIM":
            embeds = model.get_prompt_embeds(prompts[seed])
            alone = model.get_img_latents(embeds, seeds=seed, scheduler=name, **settings)
            assert torch.equal(alone, expected), "as many slots as in diffusers, so the same bits"


def test_a_scheduler_without_a_table_is_warned_of_once_and_says_why(
    pipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(pipe)
    model.scheduler_DDIM = DDIMScheduler(**BETAS, thresholding=True)
    with caplog.at_level(logging.WARNING):
        for steps in (2, 2, 3):
            model.prompt_to_img(["a cat", "a dog"], 16, 16, steps, scheduler="DDIM", progress=False)
        model.prompt_to_img("a cat", 16, 16, 2, scheduler="LMS", progress=False)
    found = [
        record.getMessage()
        for record in caplog.records
        if record.name == "worker.diffusion.compiled_schedulers"
    ]
    assert found == [
        f"DDIM at {steps} steps has no table (thresholding): it steps by itself, image by image"
        for steps in (2, 3)
    ]


def test_each_shape_is_compiled_to_a_graph_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own way is one graph for all shapes after the first, and none after eight."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    # Not by monkeypatch: it takes away in the end what an object has by __getattr__.
    with torch._dynamo.config.patch(recompile_limit=8):
        counters = torch._dynamo.utils.counters
        torch._dynamo.reset()
        before = counters["stats"]["unique_graphs"]
        forward = compile_by_shape(torch.nn.Linear(4, 4))
        for slots in [*range(2, 12), *range(2, 12)]:
            assert forward(torch.ones(slots, 4)).shape == (slots, 4)
        torch._dynamo.reset()
    assert counters["stats"]["unique_graphs"] - before == 10


def unet_slots(model: ImageDiffusionModel, act: Callable[[], object]) -> list[int]:
    """The slots of each call of the UNet."""
    slots: list[int] = []
    hook = model.unet.register_forward_pre_hook(lambda module, args: slots.append(len(args[0])))
    act()
    hook.remove()
    return slots


@pytest.mark.parametrize(
    ("count", "scales", "slots", "expected"),
    [
        (1, 1.0, None, [1, 1]),
        (1, 7.5, None, [2, 2]),
        (3, [7.5, 1.0, 2.0], None, [5, 5]),
        (9, 7.5, None, [18, 18]),
        (17, 7.5, None, [32, 32, 32, 32]),
        (3, 7.5, 4, [4, 4, 4, 4]),
        (1, 7.5, 5, [5, 5]),
    ],
    ids=str,
)
def test_a_call_has_the_slots_that_its_images_need(
    model: ImageDiffusionModel,
    count: int,
    scales: float | list[float],
    slots: int | None,
    expected: list[int],
) -> None:
    settings: dict[str, Any] = {"guidance_scale": scales, "seeds": 1, "scheduler": "DDIM"}
    settings["batch_size"] = slots
    prompts = ["a cat"] * count
    assert unet_slots(model, lambda: model.prompt_to_img(prompts, 16, 16, 2, progress=False, **settings)) == (
        expected
    )


def test_long_schedules_enter_first_so_that_no_slot_stands_empty_for_them(model: ImageDiffusionModel) -> None:
    """Heun takes three forwards for two steps: in the order given, two slots would need five."""
    names = ["DDIM", "DDIM", "Heun", "Heun", "DDIM"]
    settings: dict[str, Any] = {"guidance_scale": 1.0, "batch_size": 2, "seeds": 1, "scheduler": names}
    assert unet_slots(
        model, lambda: model.prompt_to_img(["a cat"] * 5, 16, 16, 2, progress=False, **settings)
    ) == ([2] * 6 + [2])


def test_each_prompt_has_its_own_settings_and_keeps_its_place(model: ImageDiffusionModel) -> None:
    """In as many slots, it is the same to the bit alone as among others."""
    settings: dict[str, Any] = {"height": 16, "width": 16, "num_inference_steps": 3, "batch_size": 4}
    seeds, names, scales = [5, 6, 7, 8], ["LMS", "DDIM", "k_euler_a", "Heun"], [7.5, 3.0, 1.0, 2.0]
    start = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(9))
    starts = [None, start, None, start.numpy()]
    embeds = model.get_prompt_embeds(["a red circle", "a blue star", "a green ring", "a black heart"], "x")
    together = model.get_img_latents(
        embeds, guidance_scale=scales, img_latents=starts, seeds=seeds, scheduler=names, **settings
    )
    for index in range(4):
        alone = model.get_img_latents(
            embeds[[index, 4 + index]],
            guidance_scale=scales[index],
            img_latents=starts[index : index + 1],
            seeds=seeds[index],
            scheduler=names[index],
            **settings,
        )
        assert torch.equal(alone[0], together[index]), names[index]


def test_the_bar_counts_the_forwards_of_every_image(
    model: ImageDiffusionModel, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    model.prompt_to_img(
        ["a cat", "a dog", "a fox"], 16, 16, 4, scheduler=["DDIM", "Heun", "PNDM"], batch_size=2
    )
    last = capfd.readouterr().err.split("\r")[-1]
    assert "100%" in last
    assert f"{4 + 7 + 5}/{4 + 7 + 5}" in last


def test_one_seed_for_all_gives_one_noise_and_no_seed_a_fresh_one(model: ImageDiffusionModel) -> None:
    settings = {"num_inference_steps": 2, "progress": False, **SIZE}
    same = model.prompt_to_img(["a cat", "a cat"], seeds=0, **settings)
    assert np.array_equal(same[0], same[1])
    fresh = model.prompt_to_img(["a cat", "a cat"], **settings)
    assert not np.array_equal(fresh[0], fresh[1])


def test_the_quick_start_runs_as_written(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(str(tmp_path / "model"))
    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", lambda _model_id: loaded)
    model_id = "any/model"
    capfd.readouterr()

    # fmt: off
    pipe = StableDiffusionPipeline.from_pretrained(model_id)
    diffusion_model = ImageDiffusionModel(vae=pipe.vae, tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder, unet=pipe.unet,
        scheduler_LMS=LMSDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        scheduler_DDIM=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"))
    images = diffusion_model.prompt_to_img(prompts="A beautiful sunset over mountains with a lake reflection",
        height=64, width=64, num_inference_steps=5, guidance_scale=7.5)  # 512, 512 and 50, but for the time
    images[0].save("generated_image.png")
    # fmt: on

    with Image.open(tmp_path / "generated_image.png") as picture:
        assert picture.size == (64, 64)
    assert "5/5" in capfd.readouterr().err


def test_the_steps_can_be_taken_one_by_one_by_position(model: ImageDiffusionModel) -> None:
    embeds = model.get_prompt_embeds(["a cat", "a dog"])
    assert embeds.shape == (4, 77, 96)
    assert torch.equal(embeds[:2], model.get_text_embeds(["", ""]))
    assert torch.equal(embeds[2:], model.get_text_embeds(["a cat", "a dog"]))
    latents = model.get_img_latents(embeds, 64, 32, 2, 7.5, None)
    assert latents.shape == (2, 4, 16, 8)
    imgs = model.decode_img_latents(latents)
    assert imgs.shape == (2, 3, 64, 32)
    assert [picture.size for picture in model.transform_imgs(imgs)] == [(32, 64)] * 2


def test_defaults_are_those_of_the_class_everyone_knows(
    model: ImageDiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def stub(self: Any, embeds: torch.Tensor, *values: Any, **named: Any) -> torch.Tensor:
        seen["values"], seen["scheduler"] = values, named["scheduler"]
        seen["batch_size"] = named["batch_size"]
        return torch.zeros(1, 4, 2, 2)

    monkeypatch.setattr(ImageDiffusionModel, "get_img_latents", stub)
    model.prompt_to_img("a cat", progress=False)
    assert seen == {"values": (512, 512, 50, 7.5, None), "scheduler": "LMS", "batch_size": None}


@pytest.mark.parametrize(
    ("shape", "prompts"),
    [((1, 4, 8, 8), "a cat"), ((4, 16, 16), "a cat"), ((1, 4, 16, 16), ["a cat", "a dog"])],
)
def test_latents_of_a_wrong_shape_are_refused_with_the_right_one(
    model: ImageDiffusionModel, shape: tuple[int, ...], prompts: str | list[str]
) -> None:
    count = 1 if isinstance(prompts, str) else len(prompts)
    with pytest.raises(LatentsError) as caught:
        model.prompt_to_img(prompts, img_latents=torch.zeros(shape), progress=False, **SIZE)
    assert str(shape) in str(caught.value)
    assert str((count, 4, 16, 16)) in str(caught.value)


def test_wrong_settings_are_refused_with_name_value_and_remedy(pipe: Any, model: ImageDiffusionModel) -> None:
    with pytest.raises(RenderError, match=r"height = 500: .*\(496 or 504\)"):
        model.prompt_to_img("a cat", height=500, progress=False)
    with pytest.raises(RenderError, match="num_inference_steps = 0"):
        model.prompt_to_img("a cat", num_inference_steps=0, progress=False, **SIZE)
    with pytest.raises(RenderError, match="seeds: 3 values for 1 image: "):
        model.prompt_to_img("a cat", seeds=[1, 2, 3], progress=False, **SIZE)
    for guidance, slots, least in ((7.5, 1, 2), (1.0, 0, 1)):
        with pytest.raises(RenderError, match=f"batch_size = {slots}: must be at least {least}"):
            model.prompt_to_img("a cat", guidance_scale=guidance, batch_size=slots, progress=False, **SIZE)
    for steps in (1000, 1500):  # diffusers' DDIM raises IndexError at one and ValueError at the other
        with pytest.raises(RenderError, match=f"num_inference_steps = {steps}: DDIM cannot run so many"):
            model.prompt_to_img("a cat", num_inference_steps=steps, scheduler="DDIM", progress=False, **SIZE)
    with pytest.raises(ManifestError, match="no scheduler is called 'Eular'"):
        model.prompt_to_img("a cat", scheduler="Eular", progress=False, **SIZE)
    with pytest.raises(RenderError, match="precision = 'fp8'"):
        model_of(pipe, "fp8")
    with pytest.raises(SettingsError, match=r"device = 'tpu9': .* use auto, cpu or cuda"):
        resolve_device("tpu9")
    with pytest.raises(SettingsError, match="device = 'cuda:99'"):
        resolve_device("cuda:99")


def test_a_model_that_is_not_text_to_image_is_refused(pipe: Any) -> None:
    parts = dict(pipe.components)
    parts["unet"] = copy.copy(parts["unet"])
    parts["unet"].register_to_config(in_channels=9)
    with pytest.raises(ModelError, match="9 input channels for 4 latent channels"):
        ImageDiffusionModel(
            *(parts[name] for name in ("vae", "tokenizer", "text_encoder", "unet")),
            LMSDiscreteScheduler(),
            DDIMScheduler(),
        )


def test_amp_computes_linear_layers_in_bfloat16_and_decodes_in_float32() -> None:
    model = model_of(build(), "amp")
    linear: list[torch.dtype] = []
    decoded: list[torch.dtype] = []
    layer = model.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_out[0]
    assert isinstance(layer, torch.nn.Linear)
    hooks = [
        layer.register_forward_hook(lambda module, args, output: linear.append(args[0].dtype)),
        model.vae.decoder.conv_in.register_forward_hook(
            lambda module, args, output: decoded.append(args[0].dtype)
        ),
    ]
    assert model.unet.dtype == torch.float32
    picture = model.prompt_to_img("a cat", num_inference_steps=2, progress=False, **SIZE)[0]
    for hook in hooks:
        hook.remove()
    assert set(linear) == {torch.bfloat16}
    assert set(decoded) == {torch.float32}
    assert np.asarray(picture).std() > 5


@pytest.mark.parametrize(
    ("precision", "unet", "vae"),
    [
        ("auto", torch.float32, torch.float32),
        ("bf16", torch.bfloat16, torch.bfloat16),
        ("fp16", torch.float16, torch.float32),
    ],
)
def test_half_precision_weights_paint_about_the_same_picture(
    model: ImageDiffusionModel, precision: str, unet: torch.dtype, vae: torch.dtype
) -> None:
    half = model_of(build(), precision)
    assert (half.unet.dtype, half.text_encoder.dtype, half.vae.dtype) == (unet, unet, vae)
    settings = {"num_inference_steps": 3, "seeds": 4, "guidance_scale": 2.0, "progress": False, **SIZE}
    ours = np.asarray(half.prompt_to_img("a cat", **settings)[0], dtype=float)
    exact = np.asarray(model.prompt_to_img("a cat", **settings)[0], dtype=float)
    assert np.abs(ours - exact).mean() < 3


def test_half_weights_go_up_to_fp32_and_come_back_bit_for_bit() -> None:
    model = model_of(build(), "bf16")
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    with model.in_fp32():
        assert model.precision.name == "fp32"
        assert {model.unet.dtype, model.vae.dtype, model.text_encoder.dtype} == {torch.float32}
    assert model.precision.name == "bf16"
    assert all(torch.equal(value, before[name]) for name, value in model.unet.state_dict().items())


def test_a_call_leaves_no_state_and_no_random_numbers_behind(model: ImageDiffusionModel) -> None:
    settings = {"num_inference_steps": 3, "seeds": 1, "progress": False, **SIZE}
    first = model.prompt_to_img("a cat", **settings)[0]
    state = torch.get_rng_state()
    model.prompt_to_img("a dog", scheduler="DDIM", num_inference_steps=2, seeds=3, progress=False, **SIZE)
    second = model.prompt_to_img("a cat", **settings)[0]
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert torch.equal(state, torch.get_rng_state())


def test_memory_that_runs_out_on_the_way_to_fp32_leaves_the_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of(build(), "bf16")
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    to = torch.nn.Module.to
    parameters = iter(list(model.unet.parameters())[:5])

    def halfway(module: torch.nn.Module, *arguments: Any) -> torch.nn.Module:
        if module is model.unet and arguments[-1] is torch.float32:
            for parameter in parameters:
                parameter.data = parameter.data.float()
            raise torch.OutOfMemoryError("out of memory")
        return to(module, *arguments)

    monkeypatch.setattr(torch.nn.Module, "to", halfway)
    with pytest.raises(torch.OutOfMemoryError), model.in_fp32():
        pytest.fail("memory ran out before")
    assert model.precision.name == "bf16"
    after = model.unet.state_dict()
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert all(torch.equal(after[name], value) for name, value in before.items())
