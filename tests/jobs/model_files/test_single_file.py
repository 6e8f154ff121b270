"""Single-file checkpoints as models: what is known without torch, and what is refused before it is queued."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ModelError
from jobs.models.models import name_trouble, resolve_model
from tests.checkpoint_files import FLUX, SD, UNET, XL, Shapes, checkpoint, configuration

COMMIT = "133a221b8aa7292a167afc5127cb63fb5005638b"


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def sd(folder: Path, shapes: Shapes = SD, **configs: Mapping[str, Any]) -> str:
    """A checkpoint of Stable Diffusion 1 and its configuration."""
    configuration(folder / "m.config", "StableDiffusionPipeline", **configs)
    return str(checkpoint(folder / "m.safetensors", shapes))


def refusal(model: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        resolve_model(str(model))
    return str(caught.value)


def test_a_checkpoint_has_the_class_and_the_defaults_of_its_configuration(tmp_path: Path) -> None:
    found = resolve_model(sd(tmp_path, unet={"in_channels": 4, "sample_size": 32}))
    assert (found.model, found.label) == (str(tmp_path / "m.safetensors"), "m.safetensors")
    assert (found.pipeline, found.latent_channels, found.latent_scale) == ("StableDiffusionPipeline", 4, 8)
    assert (found.defaults.height, found.defaults.scheduler) == (256, "LMS")
    configuration(tmp_path / "xl.config", "StableDiffusionXLPipeline", unet={"sample_size": 128})
    found = resolve_model(str(checkpoint(tmp_path / "xl.safetensors", XL)))
    assert (found.pipeline, found.defaults.height) == ("StableDiffusionXLPipeline", 1024)
    assert (found.defaults.num_inference_steps, found.defaults.guidance_scale) == (50, 5.0)


def test_the_configuration_may_be_that_of_the_hubs_cache(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "xl.safetensors", XL)
    cached = tmp_path / "hub" / "models--stabilityai--stable-diffusion-xl-base-1.0"
    configuration(cached / "snapshots" / COMMIT, "StableDiffusionXLPipeline")
    assert "its configuration is not at hand" in refusal(file)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    of_cache = resolve_model(str(file))
    assert of_cache.pipeline == "StableDiffusionXLPipeline"
    configuration(tmp_path / "xl.config", "StableDiffusionXLPipeline", vae={"scaling_factor": 0.5})
    assert resolve_model(str(file)).revision != of_cache.revision


def test_without_a_configuration_it_is_said_which_one_is_wanted_and_nothing_is_downloaded(
    tmp_path: Path,
) -> None:
    file = checkpoint(tmp_path / "xl.safetensors", XL)
    beside = tmp_path / "xl.config"
    assert refusal(file) == (
        f"model = {file}: is a checkpoint of Stable Diffusion XL, and its configuration is not at hand: put "
        f"a diffusers folder of that model at {beside}, or fetch the one that diffusers takes: "
        "hf download stabilityai/stable-diffusion-xl-base-1.0 --include '*.json' --include '*.model' "
        "--include '*.txt'"
    )
    told = refusal(checkpoint(tmp_path / "flux.safetensors", FLUX))
    assert "hf download black-forest-labs/FLUX.1-dev " in told and "--include 'text_encoder_2/*'" in told
    without = {name: shape for name, shape in FLUX.items() if "guidance" not in name}
    told = refusal(checkpoint(tmp_path / "flux.safetensors", without))
    assert "FLUX.1 schnell" in told and "hf download black-forest-labs/FLUX.1-schnell " in told
    assert not (tmp_path / "hub").exists()


def test_the_revision_follows_from_the_file_and_from_what_is_read_of_its_configuration(
    tmp_path: Path,
) -> None:
    model = sd(tmp_path)
    first = resolve_model(model).revision
    assert first.startswith("sha256:")
    config = tmp_path / "m.config"
    # Weights of what the file holds are not read, nor what is no setting.
    (config / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"others")
    (config / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    (config / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle that nobody loads")
    (config / "README.md").write_text("a model")
    assert resolve_model(model).revision == first
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "m.safetensors").rename(moved / "other.safetensors")
    config.rename(moved / "other.config")
    model = str(moved / "other.safetensors")
    assert resolve_model(model).revision == first
    (moved / "other.config" / "scheduler" / "scheduler_config.json").write_text('{"beta_start": 1}')
    second = resolve_model(model).revision
    checkpoint(Path(model), SD, metadata={"title": "another"})
    assert len({first, second, resolve_model(model).revision}) == 3
    assert "holds revision sha256:" in _other_revision(model, first)


def _other_revision(model: str, revision: str) -> str:
    with pytest.raises(ModelError) as caught:
        resolve_model(model, revision)
    return str(caught.value)


def test_weights_that_are_taken_from_the_configuration_count(tmp_path: Path) -> None:
    model = sd(tmp_path, {name: shape for name, shape in SD.items() if "cond_stage_model" not in name})
    assert "holds no text_encoder, and its configuration" in refusal(model)
    weights = tmp_path / "m.config" / "text_encoder" / "model.safetensors"
    weights.write_bytes(b"weights")
    first = resolve_model(model).revision
    weights.write_bytes(b"other weights")
    assert resolve_model(model).revision != first


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        ({"lora_unet_down_blocks_0.lora_down.weight": [4, 8]}, "a LoRA or another adapter"),
        ({"transformer.single_blocks.0.lora_A.weight": [4, 8]}, "a LoRA or another adapter"),
        ({"encoder.conv_in.weight": [8, 3, 3, 3], "decoder.conv_in.bias": [8]}, "a VAE alone"),
        ({"control_model.input_hint_block.0.weight": [8, 3, 3, 3]}, "a ControlNet"),
        ({"text_model.encoder.layers.0.mlp.fc1.bias": [8]}, "a text encoder"),
        ({"emb_params": [4, 768]}, "a textual inversion"),
        ({"down_blocks.0.resnets.0.norm1.bias": [8]}, "one component of a diffusers folder"),
        ({f"{UNET}input_blocks.0.0.weight": [8, 9, 3, 3]}, "a model of inpainting"),
        ({f"{UNET}joint_blocks.0.x.weight": [8]}, "Stable Diffusion 3"),
        ({**SD, "cond_stage_model.model.ln_final.bias": [8]}, "Stable Diffusion 2"),
        ({**XL, "conditioner.embedders.0.model.ln_final.bias": [8]}, "the refiner of Stable Diffusion XL"),
        ({**FLUX, "img_in.weight": [8, 384]}, "FLUX.1 Fill"),
        ({**FLUX, "distilled_guidance_layer.in_proj.bias": [8]}, "Chroma"),
        ({"odd.weight": [8]}, "no checkpoint that is known (its first tensor is odd.weight)"),
        ({}, "a file without a tensor"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_that_is_read_is_refused_with_what_it_looks_like(
    shapes: Shapes, what: str, tmp_path: Path
) -> None:
    file = checkpoint(tmp_path / "m.safetensors", shapes)
    told = refusal(file)
    assert told.startswith(f"model = {file}: looks like {what}")
    assert "single files of Stable Diffusion 1, Stable Diffusion XL and FLUX.1 are read" in told


def test_a_text_encoder_in_a_layout_that_diffusers_does_not_read_is_refused(tmp_path: Path) -> None:
    shapes = {name.replace("text_model.embeddings", "embeddings"): shape for name, shape in SD.items()}
    assert "its text_encoder is in a layout that diffusers does not read" in refusal(sd(tmp_path, shapes))


def test_pickles_and_other_files_are_refused_with_the_remedy(tmp_path: Path) -> None:
    for name in ("m.ckpt", "m.bin", "m.pt", "m.CKPT"):
        (tmp_path / name).write_bytes(b"a pickle")
        told = refusal(tmp_path / name)
        assert (
            f"model = {tmp_path / name}: is a pickle, which runs code when it is loaded: convert it" in told
        )
    assert "is a pickle" in str(name_trouble("models/m.ckpt"))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert "a model is a diffusers folder or a checkpoint that ends in .safetensors" in refusal(
        tmp_path / "m.gguf"
    )
    assert "there is no such file" in refusal(tmp_path / "none.safetensors")


def test_a_file_that_is_cut_off_or_damaged_is_refused(tmp_path: Path) -> None:
    file = Path(sd(tmp_path))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert f"is cut off: {len(whole) - 1:,} of {len(whole):,} bytes are there" in refusal(file)
    file.write_bytes(whole[:40])
    assert "is cut off: 40 of" in refusal(file)
    file.write_bytes(b"")
    assert "is empty: fetch it again" in refusal(file)
    for damaged in (b"short", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 1 << 60) + whole):
        file.write_bytes(damaged)
        assert "is no safetensors file, or is damaged" in refusal(file)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    scaled = {**SD, f"{UNET}out.2.scale_weight": [1]}
    assert f"its weights are quantised ({UNET}out.2.scale_weight)" in refusal(sd(tmp_path, scaled))
    file = checkpoint(tmp_path / "m.safetensors", SD, "U8")
    assert "its weights are quantised" in refusal(file)


def test_a_configuration_of_another_class_is_refused(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "m.safetensors", XL)
    folder = configuration(tmp_path / "m.config", "StableDiffusionPipeline")
    assert refusal(file) == (
        f"model = {file}: is a checkpoint of Stable Diffusion XL, a StableDiffusionXLPipeline, and its "
        f"configuration {folder} is that of a StableDiffusionPipeline: put the right one there, "
        "such as stabilityai/stable-diffusion-xl-base-1.0"
    )


@pytest.mark.parametrize(
    ("configs", "told"),
    [
        ({"unet": {"in_channels": 8}}, "the channels that its UNet takes are 4, and in its configuration"),
        ({"unet": {"in_channels": 4, "block_out_channels": [16]}}, "the width of its UNet is 8"),
        ({"text_encoder": {"num_hidden_layers": 1}}, "the layers of its text_encoder are 2"),
    ],
)
def test_figures_of_the_configuration_that_are_not_the_files_are_refused(
    configs: Mapping[str, Any], told: str, tmp_path: Path
) -> None:
    assert told in refusal(sd(tmp_path, **configs))


def test_flux_with_guidance_wants_a_configuration_with_guidance(tmp_path: Path) -> None:
    shapes = {**FLUX, "vae.decoder.conv_in.bias": [8]}
    file = checkpoint(tmp_path / "m.safetensors", shapes)
    folder = configuration(tmp_path / "m.config", "FluxPipeline", transformer={"guidance_embeds": False})
    for name in ("text_encoder", "text_encoder_2"):
        (folder / name / "model.safetensors").write_bytes(b"weights")
    assert "(FLUX.1 dev has one, schnell none) is True" in refusal(file)
    configuration(folder, "FluxPipeline", transformer={"guidance_embeds": True, "num_layers": 19})
    assert "its double_blocks are 1, and in its configuration" in refusal(file)
    configuration(folder, "FluxPipeline", transformer={"guidance_embeds": True, "num_layers": 1})
    assert resolve_model(str(file)).pipeline == "FluxPipeline"


def test_a_checkpoint_that_predicts_velocity_wants_a_sampler_that_does(tmp_path: Path) -> None:
    model = sd(tmp_path)
    for shapes, metadata in (
        ({**SD, "v_pred": [0]}, None),
        (SD, {"modelspec.prediction_type": "v"}),
    ):
        checkpoint(Path(model), shapes, metadata=metadata)
        configuration(tmp_path / "m.config", "StableDiffusionPipeline")
        assert "prediction_type of its sampler is v_prediction, and in its configuration" in refusal(model)
        sampler = {"prediction_type": "v_prediction"}
        configuration(tmp_path / "m.config", "StableDiffusionPipeline", scheduler=sampler)
        assert resolve_model(model).pipeline == "StableDiffusionPipeline"
    checkpoint(Path(model), {**SD, "v_pred": [0], "ztsnr": [0]})
    assert "rescale_betas_zero_snr of its sampler is True" in refusal(model)


def test_code_in_the_configuration_is_refused(tmp_path: Path) -> None:
    model = sd(tmp_path)
    (tmp_path / "m.config" / "unet" / "mine.py").write_text("code")
    assert "is or names code that comes with the model" in refusal(model)


def test_a_folder_with_such_a_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").mkdir()
    assert "holds no model_index.json" in refusal(tmp_path / "m.safetensors")


def test_a_link_to_a_checkpoint_has_a_configuration_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "mine.safetensors"
    link.symlink_to(sd(tmp_path / "there"))
    assert f"put a diffusers folder of that model at {link.with_suffix('.config')}" in refusal(link)
    configuration(tmp_path / "here" / "mine.config", "StableDiffusionPipeline")
    assert resolve_model(str(link)).model == str(link)
