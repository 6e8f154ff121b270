"""LoRAs beside a pipeline's layers: as diffusers loads them, and gone without a trace."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from jobs.adapters import loras_of
from jobs.errors import InputError, RenderError
from tests.random_loras import LoraFolder, Tensors, as_kohya, loras, random_lora
from tests.tiny.families import FAMILIES
from worker.diffusion.lora_fit import layers_of
from worker.diffusion.loras import Loras

NAMES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> LoraFolder:
    return LoraFolder(tmp_path_factory.mktemp("inputs"))


def build(name: str) -> DiffusionPipeline:
    pipeline = FAMILIES[name].build()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def denoiser(pipeline: DiffusionPipeline) -> tuple[Any, str]:
    name = "unet" if hasattr(pipeline, "unet") else "transformer"
    return getattr(pipeline, name), name


def paint(pipeline: DiffusionPipeline) -> torch.Tensor:
    with torch.no_grad():
        [picture] = pipeline(
            "a star",
            height=32,
            width=32,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(1),
            output_type="np",
        ).images
    return torch.from_numpy(picture)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def plain(pipeline: DiffusionPipeline) -> Tensors:
    return random_lora(*denoiser(pipeline))


def with_text_encoder(pipeline: DiffusionPipeline) -> Tensors:
    of_texts = random_lora(pipeline.text_encoder, "text_encoder", lambda name: name.endswith("_proj"), seed=2)
    return random_lora(*denoiser(pipeline), rank=8, seed=3) | of_texts


def dora(pipeline: DiffusionPipeline) -> Tensors:
    return random_lora(*denoiser(pipeline), lambda name: name.endswith("to_q"), seed=4, dora=True)


def old_names(pipeline: DiffusionPipeline) -> Tensors:
    return {
        name.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): tensor
        for name, tensor in plain(pipeline).items()
    }


KINDS = (plain, with_text_encoder, dora, old_names)


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_paints_as_diffusers_own_set_adapters_does_and_leaves_no_trace(
    name: str, folder: LoraFolder, tmp_path: Path
) -> None:
    pipeline, reference = build(name), build(name)
    base = paint(pipeline)
    ours = Loras(pipeline)
    for kind in KINDS:
        if kind is old_names and name == "FluxPipeline":
            continue  # which diffusers does not load
        sha256 = folder.keep(kind(pipeline))
        shutil.copy(folder.path(sha256), tmp_path / f"{kind.__name__}.safetensors")
        reference.load_lora_weights(
            tmp_path, weight_name=f"{kind.__name__}.safetensors", adapter_name=kind.__name__
        )
        reference.set_adapters([kind.__name__], [0.7])
        ours.put_on(loras_of(loras((sha256, 0.7))), folder.inputs)
        picture = paint(pipeline)
        assert difference(picture, paint(reference)) <= 1e-5
        assert difference(picture, base) > 1e-3
        ours.put_on((), folder.inputs)
        assert torch.equal(paint(pipeline), base)


def test_several_loras_add_up_in_their_order(folder: LoraFolder, tmp_path: Path) -> None:
    pipeline, reference = build(NAMES[1]), build(NAMES[1])
    hashes = [folder.keep(kind(pipeline)) for kind in (plain, with_text_encoder)]
    for number, sha256 in enumerate(hashes):
        shutil.copy(folder.path(sha256), tmp_path / f"{number}.safetensors")
        reference.load_lora_weights(tmp_path, weight_name=f"{number}.safetensors", adapter_name=f"n{number}")
    reference.set_adapters(["n0", "n1"], [0.4, -0.9])
    ours = Loras(pipeline)
    ours.put_on(loras_of(loras((hashes[0], 0.4), (hashes[1], -0.9))), folder.inputs)
    assert difference(paint(pipeline), paint(reference)) <= 1e-5


@pytest.mark.parametrize("name", NAMES[:2])
def test_alphas_of_kohya_s_files_count(name: str, folder: LoraFolder) -> None:
    pipeline = build(name)
    ours, tensors = Loras(pipeline), random_lora(*denoiser(pipeline), rank=4)
    ours.put_on(loras_of(loras((folder.keep(tensors), 0.5))), folder.inputs)
    halved = paint(pipeline)
    ours.put_on(loras_of(loras((folder.keep(as_kohya(tensors, alpha=2.0)), 1.0))), folder.inputs)
    assert difference(paint(pipeline), halved) <= 1e-5


def test_scales_in_a_file_s_header_count(folder: LoraFolder) -> None:
    pipeline = build(NAMES[1])
    ours = Loras(pipeline)
    tensors = random_lora(*denoiser(pipeline), lambda name: name.endswith("to_q"), rank=4)
    ours.put_on(loras_of(loras((folder.keep(tensors), 0.5))), folder.inputs)
    halved = paint(pipeline)
    config = {"unet.r": 4, "unet.lora_alpha": 2, "unet.target_modules": ["to_q"], "unet.lora_dropout": 0.5}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(config)}
    ours.put_on(loras_of(loras((folder.keep(tensors, metadata), 1.0))), folder.inputs)
    assert difference(paint(pipeline), halved) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_of_zero_paints_the_bytes_of_the_base(name: str, folder: LoraFolder) -> None:
    pipeline = build(name)
    base = paint(pipeline)
    Loras(pipeline).put_on(loras_of(loras((folder.keep(plain(pipeline)), 0.0))), folder.inputs)
    assert torch.equal(paint(pipeline), base)


def test_bytes_do_not_depend_on_what_was_loaded_before_or_taken_out(folder: LoraFolder) -> None:
    pipeline = build(NAMES[1])
    hashes = [folder.keep(kind(pipeline)) for kind in (plain, with_text_encoder, dora)]
    fresh = []
    for sha256 in hashes:
        alone = build(NAMES[1])
        Loras(alone).put_on(loras_of(loras((sha256, 0.8))), folder.inputs)
        fresh.append(paint(alone))
    ours = Loras(pipeline, most=1)
    for turn in (0, 1, 2, 0):
        ours.put_on(loras_of(loras((hashes[turn], 0.8))), folder.inputs)
        ours.forget_unused()
        assert ours.loaded == (hashes[turn],)
        assert torch.equal(paint(pipeline), fresh[turn])
    ours.put_on((), folder.inputs)
    ours.forget_unused()
    assert ours.loaded == ()
    assert torch.equal(paint(pipeline), paint(build(NAMES[1])))


def test_the_longest_unused_is_taken_out_first(folder: LoraFolder) -> None:
    pipeline = build(NAMES[2])
    hashes = [folder.keep(random_lora(*denoiser(pipeline), seed=seed)) for seed in (1, 2, 3)]
    size = sum(tensor.nbytes for tensor in load_file(folder.path(hashes[0])).values())
    ours = Loras(pipeline, most=2 * size)
    for turn in (0, 1, 0, 2):
        ours.put_on(loras_of(loras((hashes[turn], 1.0))), folder.inputs)
        ours.forget_unused()
    assert ours.loaded == (hashes[0], hashes[2])


def test_parts_are_in_the_number_format_of_their_layer(folder: LoraFolder) -> None:
    pipeline = build(NAMES[1])
    pipeline.to(torch.bfloat16)
    ours = Loras(pipeline)
    ours.put_on(loras_of(loras((folder.keep(with_text_encoder(pipeline)), 1.0))), folder.inputs)
    for model in (pipeline.unet, pipeline.text_encoder):
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def wider(pipeline: DiffusionPipeline) -> Tensors:
    """For layers of twice as many inputs."""
    return {
        name: torch.cat([tensor, tensor], 1) if ".lora_A." in name else tensor
        for name, tensor in random_lora(*denoiser(pipeline), lambda name: name.endswith("to_q")).items()
    }


def without_prefix(pipeline: DiffusionPipeline) -> Tensors:
    return {name.partition(".")[2]: tensor for name, tensor in plain(pipeline).items()}


def one_half(pipeline: DiffusionPipeline) -> Tensors:
    return {name: tensor for name, tensor in plain(pipeline).items() if ".lora_A." in name}


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, wider) for name in NAMES), (NAMES[1], without_prefix), (NAMES[2], one_half)],
)
def test_what_does_not_fit_is_refused_in_one_sentence_and_the_model_is_unharmed(
    name: str,
    kind: Callable[[DiffusionPipeline], Tensors],
    folder: LoraFolder,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline = build(name)
    shapes = {key: weight.shape for key, weight in denoiser(pipeline)[0].named_parameters()}
    base = paint(pipeline)
    ours, bad = Loras(pipeline), folder.keep(kind(pipeline))
    capfd.readouterr()
    with caplog.at_level(logging.WARNING):
        for _again in range(2):
            with pytest.raises(
                RenderError, match=rf"^loras: {bad[:4]}\.safetensors: .*(: name a|: fetch it|: they must)"
            ) as refusal:
                ours.put_on(loras_of(loras((bad, 1.0))), folder.inputs)
    assert "\n" not in str(refusal.value)
    assert (capfd.readouterr().err, caplog.records) == ("", [])
    assert {key: weight.shape for key, weight in denoiser(pipeline)[0].named_parameters()} == shapes
    assert torch.equal(paint(pipeline), base)
    good = folder.keep(plain(pipeline))
    ours.put_on(loras_of(loras((good, 1.0))), folder.inputs)
    alone = build(name)
    Loras(alone).put_on(loras_of(loras((good, 1.0))), folder.inputs)
    assert torch.equal(paint(pipeline), paint(alone))


def test_the_layers_themselves_are_compared_as_well_before_diffusers_could_widen_one() -> None:
    pipeline = build(NAMES[2])
    layer = "transformer.transformer_blocks.0.attn"
    assert layers_of(pipeline, plain(pipeline)).keys() == {"transformer"}
    with pytest.raises(RenderError, match="as a layer of 32 x 64, and the model's is of 32 x 32"):
        layers_of(pipeline, wider(pipeline))
    with pytest.raises(RenderError, match="has one half of"):
        layers_of(pipeline, one_half(pipeline))
    with pytest.raises(RenderError, match=r"norm_q\.weight, which is no part of a LoRA"):
        layers_of(pipeline, plain(pipeline) | {f"{layer}.norm_q.weight": torch.ones(16)})
    with pytest.raises(RenderError, match="changes with none of its 6 tensors"):
        layers_of(pipeline, {f"other.{name}": tensor for name, tensor in [*plain(pipeline).items()][:6]})


def test_a_file_that_is_no_lora_or_no_safetensors_is_refused(folder: LoraFolder) -> None:
    pipeline = build(NAMES[1])
    ours = Loras(pipeline)
    for sha256 in (
        folder.keep_bytes(b"no safetensors file at all"),
        folder.keep({"conv_in.weight": torch.zeros(4)}),
        folder.keep({name.replace("lora_", "lokr_"): one for name, one in plain(pipeline).items()}),
    ):
        with pytest.raises(RenderError, match="safetensors: "):
            ours.put_on(loras_of(loras((sha256, 1.0))), folder.inputs)
        assert ours.on == ()


def test_a_failure_in_the_midst_of_loading_leaves_nothing_behind(
    folder: LoraFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build(NAMES[1])
    base, sha256 = paint(pipeline), folder.keep(with_text_encoder(pipeline))
    ours = Loras(pipeline)

    def no_room(*_args: Any, **_kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(type(pipeline), "load_lora_into_text_encoder", no_room)
        with pytest.raises(torch.OutOfMemoryError):
            ours.put_on(loras_of(loras((sha256, 1.0))), folder.inputs)
    assert torch.equal(paint(pipeline), base)
    ours.put_on(loras_of(loras((sha256, 1.0))), folder.inputs)
    alone = build(NAMES[1])
    Loras(alone).put_on(loras_of(loras((sha256, 1.0))), folder.inputs)
    assert torch.equal(paint(pipeline), paint(alone))


def test_what_becomes_of_the_file_afterwards_changes_nothing(folder: LoraFolder) -> None:
    pipeline = build(NAMES[0])
    sha256 = folder.keep(plain(pipeline))
    ours = Loras(pipeline)
    ours.put_on(loras_of(loras((sha256, 1.0))), folder.inputs)
    picture = paint(pipeline)
    size = folder.path(sha256).stat().st_size
    with folder.path(sha256).open("r+b") as file:  # as `cp` writes over it, which a map of the file sees
        file.write(bytes(size))
    assert torch.equal(paint(pipeline), picture)
    ours.put_on((), folder.inputs)
    ours.put_on(loras_of(loras((sha256, 1.0))), folder.inputs)
    assert torch.equal(paint(pipeline), picture)


def test_a_lora_that_is_named_twice_is_refused(folder: LoraFolder) -> None:
    pipeline = build(NAMES[2])
    sha256 = folder.keep(plain(pipeline))
    with pytest.raises(RenderError, match="is named 2 times: name it once, with the sum of the scales"):
        Loras(pipeline).put_on(loras_of(loras((sha256, 1.0), (sha256, 0.5))), folder.inputs)


def test_a_file_that_is_missing_is_said_with_its_path(folder: LoraFolder) -> None:
    ours = Loras(build(NAMES[2]))
    with pytest.raises(InputError, match=f"{'7' * 64}: is missing"):
        ours.put_on(loras_of(loras(("7" * 64, 1.0))), folder.inputs)


def test_a_pipeline_that_takes_no_loras_says_so(folder: LoraFolder) -> None:
    other = build(NAMES[2])
    pipeline = build("PixArtSigmaPipeline")
    with pytest.raises(RenderError, match="diffusers loads no LoRA into a PixArtSigmaPipeline: remove it"):
        Loras(pipeline).put_on(loras_of(loras((folder.keep(plain(other)), 1.0))), folder.inputs)
