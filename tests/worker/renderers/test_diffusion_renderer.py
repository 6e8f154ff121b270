"""Requests in, pictures out, among any others: each picture's bytes follow from its request alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import ImagemillError, LatentsError, RenderError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.request import ImageRequest
from jobs.schedulers import SCHEDULERS, forwards
from tests.held_inputs import LATENTS, holding
from worker.diffusion import denoiser_by_length
from worker.engine import slot_count
from worker.engine.renderer import BrokenDevice, Bucket, OutOfMemory, Picture, Pipeline, Stopped
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.instant import InstantRenderer
from worker.renderers.pipelines import load_model

MODEL = ("shapes-random", "shapes-random-1")
BUCKET = Bucket(Pipeline(*MODEL, "fp32"), 32, 32, slots=16)
SMALL = replace(BUCKET, slots=8)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    request: ImageRequest
    inputs: Inputs = NO_INPUTS


def wanted(seed: int, *, own_latents: bool = False, **settings: object) -> Wanted:
    request = ImageRequest(
        **{  # type: ignore[arg-type]
            "prompt": f"a star {seed}",
            "negative_prompt": "blurry",
            "seed": seed,
            "height": 32,
            "width": 32,
            "num_inference_steps": 3,
            "model": MODEL[0],
            "revision": MODEL[1],
            **settings,
        }
    )
    if not own_latents:
        return Wanted(request)
    start = np.random.default_rng(seed).standard_normal((4, 8, 8), dtype=np.float32)
    return Wanted(replace(request, init_latents=LATENTS), holding(start))


def latents_of(one: Wanted) -> np.ndarray | None:
    return None if one.request.init_latents is None else one.inputs.latents(one.request.init_latents)


MIX = [
    wanted(0, scheduler="LMS"),
    wanted(1, scheduler="DDIM", guidance_scale=1.0),
    wanted(2, scheduler="Euler a", num_inference_steps=5),
    wanted(3, scheduler="UniPC", num_inference_steps=4, guidance_scale=3.0, own_latents=True),
    wanted(4, scheduler="DPM++ 2M SDE", guidance_scale=1.0, num_inference_steps=6),
    wanted(5, scheduler="PNDM", guidance_scale=12.0, negative_prompt=""),
    wanted(6, scheduler="LMS", guidance_scale=1.0, num_inference_steps=1, own_latents=True),
]


class Source:
    """Gives one wave of images after the other; a wave enters as slots allow, the next a step later."""

    def __init__(self, *waves: Sequence[Wanted]) -> None:
        self.waves = [list(wave) for wave in waves]

    def take(self, free_slots: int) -> list[Wanted]:
        if not self.waves:
            return []
        taken: list[Wanted] = []
        wave = self.waves[0]
        while wave and (2 if wave[0].request.guided else 1) <= free_slots:
            taken.append(wave.pop(0))
            free_slots -= 2 if taken[-1].request.guided else 1
        if not taken and not wave:
            del self.waves[0]
        return taken

    def upcoming(self, count: int) -> list[Wanted]:
        return [one for wave in self.waves for one in wave][:count]


Found = dict[int, Picture | ImagemillError]


def render(
    renderer: DiffusionRenderer, *waves: Sequence[Wanted], bucket: Bucket = BUCKET, stop: object = None
) -> Found:
    never = bool if stop is None else stop
    found: Found = {}
    for outcomes in renderer.render(bucket, Source(*waves), never):  # type: ignore[arg-type]
        for asked, result in outcomes:
            assert asked.request.seed not in found, "delivered twice"
            found[asked.request.seed] = result
    return found


def paint(renderer: DiffusionRenderer, *waves: Sequence[Wanted], bucket: Bucket = BUCKET) -> dict[int, bytes]:
    found = render(renderer, *waves, bucket=bucket)
    assert all(isinstance(picture, Picture) and picture.finite for picture in found.values())
    return {seed: picture.pixels.tobytes() for seed, picture in found.items()}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def model() -> Iterator[ImageDiffusionModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(*MODEL, "fp32", "cpu")
    torch.set_num_threads(before)


@pytest.fixture
def renderer(model: ImageDiffusionModel) -> DiffusionRenderer:
    return DiffusionRenderer(model)


@pytest.fixture(scope="module")
def alone(model: ImageDiffusionModel) -> dict[int, bytes]:
    """Each picture of the mix, rendered with no other."""
    renderer = DiffusionRenderer(model)
    found = {seed: picture for one in MIX for seed, picture in paint(renderer, [one]).items()}
    assert len(set(found.values())) == len(MIX)
    return found


@pytest.mark.parametrize(
    "order", [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 2, 5, 1, 4]], ids=str
)
def test_a_picture_is_the_same_alone_and_among_others_in_any_order(
    renderer: DiffusionRenderer, alone: dict[int, bytes], order: list[int]
) -> None:
    assert paint(renderer, [MIX[number] for number in order]) == alone


def test_a_picture_is_the_same_whenever_it_enters(
    renderer: DiffusionRenderer, alone: dict[int, bytes]
) -> None:
    assert paint(renderer, *([one] for one in MIX)) == alone
    others = [wanted(100 + number, guidance_scale=1.0 + number % 2) for number in range(20)]
    found = paint(renderer, others, [MIX[2]], MIX[:2], MIX[3:])
    assert {seed: found[seed] for seed in alone} == alone


def test_half_precision_keeps_that_promise_too() -> None:
    renderer = DiffusionRenderer(load_model(*MODEL, "bf16", "cpu"))
    assert renderer.precision == "bf16"
    together = paint(renderer, MIX[::-1], bucket=SMALL)
    for one in (MIX[0], MIX[4]):
        assert paint(renderer, [one], bucket=SMALL) == {one.request.seed: together[one.request.seed]}


def test_pictures_are_those_of_prompt_to_img(renderer: DiffusionRenderer, model: ImageDiffusionModel) -> None:
    mix = [replace(one, request=replace(one.request, num_inference_steps=3)) for one in MIX]
    requests = [one.request for one in mix]
    expected = model.prompt_to_img(
        [request.prompt for request in requests],
        32,
        32,
        3,
        [request.guidance_scale for request in requests],
        [latents_of(one) for one in mix],
        negative_prompts=[request.negative_prompt for request in requests],
        seeds=[request.seed for request in requests],
        scheduler=[request.scheduler for request in requests],
        batch_size=16,
        progress=False,
    )
    found = render(renderer, mix)
    for request, picture in zip(requests, expected, strict=True):
        ours = found[request.seed]
        assert isinstance(ours, Picture)
        # The text encoder and the VAE run in batches of another size there.
        assert np.abs(ours.pixels.astype(int) - np.asarray(picture, dtype=int)).max() <= 1


def slots_seen(model: ImageDiffusionModel, act: Callable[[], object]) -> dict[str, list[int]]:
    """How many slots each call of a part had."""
    seen: dict[str, list[int]] = {"text": [], "unet": [], "vae": []}
    hooks = [
        model.text_encoder.register_forward_pre_hook(lambda m, args: seen["text"].append(len(args[0]))),
        model.unet.register_forward_pre_hook(lambda m, args: seen["unet"].append(len(args[0]))),
        model.vae.decoder.register_forward_pre_hook(lambda m, args: seen["vae"].append(len(args[0]))),
    ]
    try:
        act()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def test_every_part_runs_at_one_shape_however_few_the_requests(
    renderer: DiffusionRenderer, model: ImageDiffusionModel
) -> None:
    for count in (1, 3, 5):
        images = [wanted(n, prompt=f"never seen before {count} {n}") for n in range(count)]
        seen = slots_seen(model, lambda images=images: paint(renderer, images, bucket=SMALL))
        assert {part: set(slots) for part, slots in seen.items()} == {"text": {8}, "unet": {8}, "vae": {2}}


def test_texts_are_encoded_a_batch_ahead(renderer: DiffusionRenderer, model: ImageDiffusionModel) -> None:
    images = [wanted(n, prompt=f"counted {n}", negative_prompt="not counted") for n in range(11)]
    seen = slots_seen(model, lambda: paint(renderer, images, bucket=SMALL))
    # Eleven prompts and a negative one they share: four enter at once, the others are seen coming.
    assert seen["text"] == [8, 8]
    # Three forwards for every four images, in 8 slots; two pictures decoded at a time.
    assert (seen["unet"], seen["vae"]) == ([8] * 9, [2] * 6)


def test_in_fast_mode_free_slots_are_left_out(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, alone: dict[int, bytes]
) -> None:
    fast = replace(BUCKET, mode="fast")
    found: dict[int, bytes] = {}
    seen = slots_seen(model, lambda: found.update(paint(renderer, [MIX[0], MIX[4]], bucket=fast)))
    assert seen["unet"] == [3, 3, 3, 1, 1, 1]
    assert seen["vae"] == [2]
    for seed, pixels in found.items():
        ours, exact = (np.frombuffer(one, np.uint8).astype(int) for one in (pixels, alone[seed]))
        assert np.abs(ours - exact).max() <= 1


def test_stop_leaves_between_two_steps(renderer: DiffusionRenderer, model: ImageDiffusionModel) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    def act() -> None:
        with pytest.raises(Stopped):
            render(renderer, [wanted(0, scheduler="DDIM", num_inference_steps=40)], stop=stop)

    seen = slots_seen(model, act)
    assert (len(seen["unet"]), seen["vae"]) == (2, [])
    asked.clear()
    with pytest.raises(Stopped):
        renderer.render_alone(wanted(0).request, NO_INPUTS, stop)


def test_what_was_finished_when_it_stops_is_still_handed_over(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, alone: dict[int, bytes]
) -> None:
    """After 3 forwards one picture is done and waits for others to be decoded with; after 5 a second."""
    forwards: list[int] = []
    hook = model.unet.register_forward_pre_hook(lambda module, args: forwards.append(1))
    found: dict[int, bytes] = {}
    wave = [MIX[0], MIX[2], wanted(50, scheduler="DDIM", num_inference_steps=40)]
    with pytest.raises(Stopped):
        for outcomes in renderer.render(BUCKET, Source(wave), lambda: len(forwards) == 5):
            assert len(forwards) == 5 or not outcomes, "four are decoded together"
            for asked, picture in outcomes:
                assert isinstance(picture, Picture)
                found[asked.request.seed] = picture.pixels.tobytes()
    hook.remove()
    assert len(forwards) == 5
    assert found == {seed: alone[seed] for seed in (0, 2)}
    last = wanted(60, num_inference_steps=1)
    assert renderer.render_alone(last.request, NO_INPUTS, lambda: True).finite


def test_a_request_that_cannot_be_rendered_gets_its_error_and_the_others_their_pictures(
    renderer: DiffusionRenderer, alone: dict[int, bytes]
) -> None:
    cut = wanted(50, own_latents=True)
    cut = replace(cut, inputs=holding(cut.inputs.latents(LATENTS)[:, :3]))
    many = wanted(51, scheduler="DDIM", num_inference_steps=1500)
    assert renderer.forwards(many.request) == 1500
    found = render(renderer, [cut, *MIX[:3], many], [MIX[3]])
    wrong, too_many = found.pop(50), found.pop(51)
    assert isinstance(wrong, LatentsError)
    assert "(1, 4, 8, 8)" in str(wrong)
    assert isinstance(too_many, RenderError)
    assert str(too_many).startswith("num_inference_steps = 1500: DDIM cannot run so many (")
    assert str(too_many).endswith("): use another number, or another scheduler")
    for seed, picture in found.items():
        assert isinstance(picture, Picture)
        assert picture.pixels.tobytes() == alone[seed]
    assert set(render(renderer, [many])) == {51}


def test_forwards_are_those_the_image_stays(renderer: DiffusionRenderer) -> None:
    for scheduler, expected in (("LMS", 3), ("Heun", 5), ("PNDM", 4)):
        assert renderer.forwards(wanted(0, scheduler=scheduler).request) == expected


@pytest.mark.parametrize("scheduler", [scheduler.name for scheduler in SCHEDULERS])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_an_image_takes_the_slot_evaluations_that_plan_counts(
    renderer: DiffusionRenderer, scheduler: str, steps: int
) -> None:
    """Or the rates that workers measure would mean something else than what `plan` divides by them."""
    for guidance_scale in (1.0, 7.5):
        settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
        request = wanted(0, scheduler=scheduler, **settings).request
        for one in (renderer, InstantRenderer(0.0)):
            work = one.forwards(request) * one.slots(request)
            assert work == forwards(scheduler, steps) * (2 if request.guided else 1)


def test_what_is_not_finite_is_said_and_its_neighbours_are_unharmed(
    renderer: DiffusionRenderer, alone: dict[int, bytes]
) -> None:
    bad = replace(wanted(50, own_latents=True), inputs=holding(np.full((4, 8, 8), np.nan, np.float32)))
    found = render(renderer, [bad, *MIX])
    broken = found.pop(50)
    assert isinstance(broken, Picture)
    assert not broken.finite
    assert (broken.pixels.shape, broken.pixels.dtype) == ((32, 32, 3), np.uint8)
    for seed, picture in found.items():
        assert isinstance(picture, Picture)
        assert picture.finite
        assert picture.pixels.tobytes() == alone[seed]


def test_values_that_only_the_decoder_makes_infinite_are_said_too(
    renderer: DiffusionRenderer, model: ImageDiffusionModel
) -> None:
    def overflow(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        output[0, 0, 0, 0] = torch.inf
        return output

    hook = model.vae.decoder.register_forward_hook(overflow)
    found = render(renderer, MIX[:2], bucket=SMALL)
    hook.remove()
    finite = {seed: picture.finite for seed, picture in found.items()}  # type: ignore[union-attr]
    assert sorted(finite.values()) == [False, True]


def test_alone_is_one_image_in_fp32_and_the_model_comes_back_unchanged() -> None:
    model = load_model(*MODEL, "bf16", "cpu")
    renderer = DiffusionRenderer(model)
    one = MIX[3]
    before = paint(renderer, [one], bucket=SMALL)
    kinds: set[torch.dtype] = set()
    pictures: list[Picture] = []
    hook = model.unet.register_forward_pre_hook(lambda module, args: kinds.add(args[0].dtype))
    seen = slots_seen(model, lambda: pictures.append(renderer.render_alone(one.request, one.inputs, bool)))
    hook.remove()
    assert kinds == {torch.float32}
    assert {part: set(slots) for part, slots in seen.items()} == {"text": {2}, "unet": {2}, "vae": {1}}
    assert paint(renderer, [one], bucket=SMALL) == before
    in_half = np.frombuffer(before[3], np.uint8).astype(int)
    assert 0 < np.abs(pictures[0].pixels.flatten() - in_half).mean() < 3


def test_it_says_what_the_bytes_depend_on(
    renderer: DiffusionRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line for line in found if line.startswith("model name")).split(": ")[1].split(" @")[0]
    kind = f"cpu {name} {torch.backends.cpu.get_cpu_capability()}"
    assert (renderer.precision, renderer.device) == ("fp32", f"{kind}, 1 thread")
    assert renderer.versions == {
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "transformers": version("transformers"),
        "pillow": version("pillow"),
        "imagemill": version("imagemill"),
    }
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    torch.set_num_threads(2)
    both = DiffusionRenderer(load_model(*MODEL, "fp32", "cpu", channels_last=True)).device
    torch.set_num_threads(1)
    assert both == f"{kind}, oneDNN AVX2, 2 threads, channels last"


def test_slots_are_measured_on_the_unet_and_once(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_count, "MOST", 4)
    measured: list[int] = []
    seen = slots_seen(model, lambda: measured.append(renderer.measure_slots(32, 32)))
    assert measured[0] in (2, 4)
    assert set(seen["unet"]) == {2, 4}
    assert all(seen["unet"].count(slots) >= 2 for slots in (2, 4)), "the first may compile"
    assert slots_seen(model, lambda: renderer.measure_slots(32, 32))["unet"] == []


def out_of_memory_from(slots: int) -> Callable[[object, tuple[torch.Tensor]], None]:
    def hook(module: object, args: tuple[torch.Tensor]) -> None:
        if len(args[0]) >= slots:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    return hook


def test_memory_that_runs_out_while_slots_are_measured_bounds_them(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_count, "GAIN", -100.0)  # more slots are never too dear
    hook = model.unet.register_forward_pre_hook(out_of_memory_from(5))
    slots = renderer.measure_slots(16, 16)
    hook.remove()
    assert slots == 4
    hook = model.unet.register_forward_pre_hook(out_of_memory_from(1))
    with pytest.raises(OutOfMemory, match="20 GiB"):
        renderer.measure_slots(24, 24)
    hook.remove()


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), OutOfMemory),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), OutOfMemory),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), OutOfMemory),
        (RuntimeError("Triton Error [CUDA]: out of memory"), OutOfMemory),
        (torch.AcceleratorError("CUDA error: out of memory"), OutOfMemory),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), BrokenDevice),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"), BrokenDevice),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), BrokenDevice),
        (RuntimeError("index out of range"), RuntimeError),
        (RuntimeError("no tokens for 'a robot out of memory'"), RuntimeError),
    ],
    ids=str,
)
def test_errors_of_the_device_are_told_from_those_of_a_request(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, raised: Exception, message: type[Exception]
) -> None:
    def fail(_module: object, _args: object) -> None:
        raise raised

    for part in (model.unet, model.vae.decoder):
        hook = part.register_forward_pre_hook(fail)
        with pytest.raises(message) as among_others:
            paint(renderer, [MIX[0]])
        with pytest.raises(message) as by_itself:
            renderer.render_alone(MIX[0].request, NO_INPUTS, bool)
        hook.remove()
        assert {among_others.type, by_itself.type} == {message}


LONG = ", ".join(f"a small red house number {n}" for n in range(20))
READ = [
    wanted(20, prompt="a (red:1.4) star", syntax="a1111"),
    wanted(21, prompt="a star BREAK a moon", syntax="a1111", num_inference_steps=5),
    wanted(22, prompt=LONG, long_prompts="chunk", guidance_scale=1.0),
    wanted(23, prompt="(star)1.3 moon--", syntax="compel", negative_prompt="(ugly)1.2"),
    wanted(24, prompt="a BREAK b BREAK c", syntax="a1111", guidance_scale=1.0, num_inference_steps=1),
    wanted(25, prompt="a star", negative_prompt=LONG, long_prompts="chunk", scheduler="UniPC"),
]


def test_texts_of_any_length_keep_that_promise(renderer: DiffusionRenderer, alone: dict[int, bytes]) -> None:
    mine = {seed: picture for one in READ for seed, picture in paint(renderer, [one]).items()}
    assert len(set(mine.values())) == len(READ)
    mixed = [one for pair in zip(READ, MIX, strict=False) for one in pair] + MIX[len(READ) :]
    for order in (mixed, mixed[::-1]):
        assert paint(renderer, order, bucket=BUCKET) == mine | alone
    assert paint(renderer, *([one] for one in mixed)) == mine | alone


def test_a_rare_length_has_its_turn_before_the_source_ends(
    renderer: DiffusionRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoiser_by_length, "_PATIENCE", 5)
    many = [wanted(100 + number, num_inference_steps=2 + number % 3) for number in range(60)]
    order = list(paint(renderer, [*many[:10], READ[1], *many[10:]]))
    assert order.index(READ[1].request.seed) < 50


def test_an_image_alone_in_fp32_may_have_weights_too(renderer: DiffusionRenderer) -> None:
    for one in READ:
        assert renderer.render_alone(one.request, NO_INPUTS, bool).finite


def test_a_text_that_cannot_be_read_fails_its_image_alone(renderer: DiffusionRenderer) -> None:
    found = render(renderer, [MIX[0], wanted(30, prompt="<lora:x:1>", syntax="a1111"), READ[1]])
    assert isinstance(found[30], RenderError) and "names a LoRA" in str(found[30])
    assert isinstance(found[0], Picture) and isinstance(found[21], Picture)


def test_what_is_cut_of_a_text_comes_with_its_picture(renderer: DiffusionRenderer) -> None:
    cut = [
        wanted(40),
        wanted(41, prompt=LONG),
        wanted(42, negative_prompt=LONG),
        wanted(43, negative_prompt=LONG, guidance_scale=1.0),
        wanted(44, prompt=LONG, syntax="a1111"),
        wanted(45, prompt=LONG, syntax="compel"),
        wanted(46, prompt=LONG, long_prompts="chunk"),
    ]
    found = {seed: picture.prompt_cut for seed, picture in render(renderer, cut).items()}  # type: ignore[union-attr]
    told = found[41]
    assert told is not None and LONG.replace(" ", "").endswith(told.replace(" ", ""))
    assert found == {
        40: None, 41: told, 42: f"negative prompt: {told}", 43: None, 44: told, 45: told, 46: None,
    }  # fmt: skip
