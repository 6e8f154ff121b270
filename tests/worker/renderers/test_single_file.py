"""Single-file checkpoints: the pictures of the folder that they were made from, or a refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS, infer_diffusers_model_type
from safetensors.torch import load_file

from jobs.errors import ModelError
from jobs.model_files.checkpoint_kind import KINDS
from jobs.models.models import resolve_model
from tests.copied_weights import copy_weights
from tests.tiny.families import FAMILIES
from tests.tiny.flux import flux_of_real_width
from tests.tiny.single_files import (
    Weights,
    flux_weights,
    save_weights,
    stable_diffusion_weights,
    stable_diffusion_xl_weights,
    t5_weights,
)
from worker.renderers.loading import Loading
from worker.renderers.pipelines import load_pipeline

CHECKPOINTS: dict[str, Callable[[DiffusionPipeline], Weights]] = {
    "StableDiffusionPipeline": stable_diffusion_weights,
    "StableDiffusionXLPipeline": stable_diffusion_xl_weights,
}
SD, XL = CHECKPOINTS


def saved(name: str, folder: Path) -> Path:
    """A tiny pipeline as a checkpoint, its configuration beside it, and whole in another folder."""
    pipeline = FAMILIES[name].build()
    pipeline.save_pretrained(folder / "whole")
    configuration(folder)
    save_weights(CHECKPOINTS[name](pipeline), folder / "m.safetensors")
    return folder


def configuration(folder: Path, *with_weights: str) -> None:
    """The whole folder's configuration, with the weights of some components, for the checkpoint."""

    def unwanted(copied: str, names: list[str]) -> list[str]:
        return [
            name for name in names if name.endswith(".safetensors") and Path(copied).name not in with_weights
        ]

    shutil.copytree(folder / "whole", folder / "m.config", dirs_exist_ok=True, ignore=unwanted)
    for file in (folder / "m.config").glob("*/*.safetensors"):
        if file.parent.name not in with_weights:
            file.unlink()


@pytest.fixture
def xl(tmp_path: Path) -> Path:
    return saved(XL, tmp_path)


def load(path: Path, precision: str = "fp32", loading: Loading | None = None) -> DiffusionPipeline:
    found = resolve_model(str(path))
    return load_pipeline(found.model, found.revision, precision, "cpu", loading=loading)


def tensors(pipeline: DiffusionPipeline) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
        for key, tensor in part.state_dict().items()
    }


def picture(pipeline: DiffusionPipeline, **settings: object) -> bytes:
    seeded = torch.Generator().manual_seed(1)
    asked = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"} | settings
    painted = copy_weights(pipeline)("a red fox", generator=seeded, **asked).images
    assert painted.std() > 0.01
    return bytes(painted.tobytes())


def changed(file: Path, change: Callable[[Weights], object], **metadata: str) -> Path:
    weights = load_file(file)
    change(weights)
    save_weights(weights, file, **metadata)
    return file


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_picture_is_that_of_the_folder_it_was_made_from(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    single, whole = load(tmp_path / "m.safetensors"), load(tmp_path / "whole")
    assert type(single) is type(whole) is type(FAMILIES[name].build())
    ours, theirs = tensors(single), tensors(whole)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert picture(single) == picture(whole)
    assert single.scheduler.config.items() >= dict(whole.scheduler.config).items()
    assert not any(part.training for part in single.components.values() if isinstance(part, torch.nn.Module))


def test_flux_has_its_transformer_from_the_file_and_the_rest_from_the_configuration(tmp_path: Path) -> None:
    """At FLUX's own width, which diffusers' converter has as a number: half a billion weights."""
    pipeline = flux_of_real_width()
    pipeline.save_pretrained(tmp_path / "whole")
    configuration(tmp_path, "vae", "text_encoder", "text_encoder_2")
    weights = flux_weights(pipeline.transformer)
    save_weights(weights, tmp_path / "m.safetensors")
    short = {"max_sequence_length": 16, "num_inference_steps": 1, "height": 16, "width": 16}
    expected = picture(load(tmp_path / "whole", "bf16"), **short)
    single = load(tmp_path / "m.safetensors", "bf16")
    assert {tensor.dtype for tensor in tensors(single).values()} == {torch.bfloat16}
    assert picture(single, **short) == expected
    del single
    # As ComfyUI saves it: under a prefix, with a text encoder in the same file.
    weights = {f"model.diffusion_model.{name}": tensor for name, tensor in weights.items()}
    save_weights(weights | t5_weights(pipeline), tmp_path / "m.safetensors")
    configuration(tmp_path, "vae", "text_encoder")
    assert picture(load(tmp_path / "m.safetensors", "bf16"), **short) == expected
    with pytest.raises(
        ModelError, match="holds T5, which must not be in fp16 as a whole: use precision bf16"
    ):
        load(tmp_path / "m.safetensors", "fp16")


def test_parts_that_nobody_has_weights_of_are_refused_with_where_to_get_them(xl: Path) -> None:
    changed(
        xl / "m.safetensors",
        lambda weights: [weights.pop(name) for name in list(weights) if name.startswith("conditioner.")],
    )
    with pytest.raises(ModelError) as caught:
        load(xl / "m.safetensors")
    assert (
        f"holds no text_encoder and no text_encoder_2, and its configuration {xl / 'm.config'} has no"
        in str(caught.value)
    )
    assert "hf download stabilityai/stable-diffusion-xl-base-1.0 --include 'text_encoder/*'" in str(
        caught.value
    )
    configuration(xl, "text_encoder", "text_encoder_2")
    assert picture(load(xl / "m.safetensors")) == picture(load(xl / "whole"))


def test_weights_that_the_file_holds_are_the_files_whatever_the_configuration_has(xl: Path) -> None:
    expected = picture(load(xl / "whole"))
    other = FAMILIES[XL].build()
    with torch.no_grad():
        other.unet.conv_in.weight.fill_(0.5)
    other.save_pretrained(xl / "m.config")
    assert picture(load(xl / "m.safetensors")) == expected


def test_weights_have_the_precision_whatever_format_the_file_has(xl: Path) -> None:
    half = tensors(load(xl / "m.safetensors", "fp16"))
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}
    assert all(torch.equal(half[key], tensor) for key, tensor in tensors(load(xl / "whole", "fp16")).items())

    def to_fp8(weights: Weights) -> None:
        weights.update({key: tensor.to(torch.float8_e4m3fn) for key, tensor in weights.items()})

    changed(xl / "m.safetensors", to_fp8)
    eighth = tensors(load(xl / "m.safetensors"))
    assert {tensor.dtype for tensor in eighth.values()} == {torch.float32}
    whole = tensors(load(xl / "whole"))
    assert all(torch.equal(whole[key].to(torch.float8_e4m3fn).float(), eighth[key]) for key in whole)


def test_the_log_says_nothing_of_parts_that_need_no_care(xl: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(xl / "m.safetensors", "bf16")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "model.diffusion_model.middle_block.0.in_layers.0.weight",
            "lacks 1 of the weights of its UNet2DConditionModel, mid_block.resnets.0.norm1.weight",
        ),
        (
            "first_stage_model.decoder.conv_in.bias",
            "lacks 1 of the weights of its AutoencoderKL, decoder.conv_in.bias",
        ),
        (
            "conditioner.embedders.1.model.text_projection",
            "its files lack 1 of its weights, text_encoder_2.text_projection.weight",
        ),
    ],
)
def test_a_weight_that_is_missing_is_named_and_never_random(name: str, told: str, xl: Path) -> None:
    file = changed(xl / "m.safetensors", lambda weights: weights.pop(name))
    with pytest.raises(ModelError) as caught:
        load(file)
    assert f"model = {file}: {told}" in str(caught.value)


def test_a_weight_that_the_configuration_has_no_place_for_is_refused(xl: Path) -> None:
    extra = "model.diffusion_model.input_blocks.1.0.in_layers.9.weight"
    file = changed(xl / "m.safetensors", lambda weights: weights.update({extra: torch.zeros(1)}))
    with pytest.raises(
        ModelError, match=r"has no place for some of its weights: UNet2DConditionModel: down_b"
    ):
        load(file)


def test_weights_of_other_shapes_than_the_configurations_are_refused(xl: Path) -> None:
    config = xl / "m.config" / "unet" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"cross_attention_dim": 40}))
    with pytest.raises(ModelError, match=r"cannot be loaded: .* expected shape"):
        load(xl / "m.safetensors")


def test_another_revision_than_the_jobs_is_refused(xl: Path) -> None:
    job = resolve_model(str(xl / "m.safetensors"))
    scheduler = xl / "m.config" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text() + "\n")
    with pytest.raises(ModelError, match=rf"the job asks for revision {job.revision}, this"):
        load_pipeline(job.model, job.revision, "fp32", "cpu")


def test_what_does_not_fit_is_refused_before_it_is_loaded(xl: Path) -> None:
    found = resolve_model(str(xl / "m.safetensors"))
    needed = sum(4 * tensor.numel() for tensor in load_file(found.model).values())
    with pytest.raises(
        ModelError, match=r"its weights need 0\.0 GiB in float32, and this machine has 0\.0 GiB"
    ):
        load_pipeline(found.model, found.revision, "fp32", "cpu", free=lambda _device: needed - 1)
    load_pipeline(found.model, found.revision, "fp32", "cpu", free=lambda _device: needed)


def test_each_kind_has_diffusers_own_repository(xl: Path) -> None:
    for word, kind in KINDS.items():
        assert {"pretrained_model_name_or_path": kind.repository} == DIFFUSERS_DEFAULT_PIPELINE_PATHS[word]
    weights = load_file(xl / "m.safetensors")
    tenth = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
    assert infer_diffusers_model_type(weights | {tenth: torch.zeros(1)}) == "xl_base"
