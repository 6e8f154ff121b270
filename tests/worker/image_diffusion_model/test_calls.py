"""What a call takes, which forwards it makes, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LMSDiscreteScheduler, StableDiffusionPipeline
from PIL import Image

from jobs.errors import LatentsError, ManifestError, ModelError, RenderError, SettingsError
from tests.worker.image_diffusion_model.models import SIZE, model_of
from worker.diffusion.precision import resolve_device
from worker.image_diffusion_model import ImageDiffusionModel, compile_by_shape

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")


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


def test_a_call_leaves_no_state_and_no_random_numbers_behind(model: ImageDiffusionModel) -> None:
    settings = {"num_inference_steps": 3, "seeds": 1, "progress": False, **SIZE}
    first = model.prompt_to_img("a cat", **settings)[0]
    state = torch.get_rng_state()
    model.prompt_to_img("a dog", scheduler="DDIM", num_inference_steps=2, seeds=3, progress=False, **SIZE)
    second = model.prompt_to_img("a cat", **settings)[0]
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert torch.equal(state, torch.get_rng_state())
