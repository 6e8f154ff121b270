"""Pipeline folders of many classes: what is loaded, in which format, and what is refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, pipelines
from safetensors.torch import load_file, save_file

from jobs.errors import ModelError
from jobs.model_files.model_folder import PARTS_OF_DIFFUSERS, folder_revision
from tests.tiny.families import FAMILIES
from worker.renderers.pipelines import load_pipeline

XL = "StableDiffusionXLPipeline"


def saved(name: str, folder: Path, **options: object) -> DiffusionPipeline:
    """A tiny pipeline, saved to the folder."""
    pipeline = FAMILIES[name].build()
    pipeline.save_pretrained(folder, **options)
    return pipeline


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "xl"
    saved(XL, path)
    return path


def load(folder: Path, precision: str = "fp32", **options: object) -> DiffusionPipeline:
    return load_pipeline(str(folder), folder_revision(folder), precision, "cpu", **options)  # type: ignore[arg-type]


def tensors(pipeline: DiffusionPipeline) -> dict[str, torch.Tensor]:
    """All weights of all components, by name."""
    return {
        f"{name}.{key}": tensor
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
        for key, tensor in part.state_dict().items()
    }


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
@pytest.mark.parametrize(
    "name",
    [XL, "StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline", "ZImagePipeline", "IFPipeline"],
)
def test_what_was_saved_is_loaded(name: str, sharded: bool, tmp_path: Path) -> None:
    built = saved(name, tmp_path, **({"max_shard_size": "20KB"} if sharded else {}))
    assert bool(list(tmp_path.glob("*/*.index.json"))) == sharded
    loaded = load(tmp_path)
    assert type(loaded) is type(built)
    assert set(loaded.components) == set(built.components)
    ours, theirs = tensors(loaded), tensors(built)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not any(part.training for part in loaded.components.values() if isinstance(part, torch.nn.Module))


def test_a_loaded_pipeline_paints_as_one_that_diffusers_loads(xl: Path) -> None:
    # Not as the one that was saved: on some CPUs the last bits depend on where in memory weights lie.
    theirs, loaded = DiffusionPipeline.from_pretrained(xl), load(xl)
    theirs.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}
    pictures = [
        pipeline("a red fox", generator=torch.Generator().manual_seed(1), **settings).images
        for pipeline in (theirs, loaded)
    ]
    assert (pictures[0] == pictures[1]).all()


def test_weights_have_the_precision_but_for_those_that_are_kept_in_float32(tmp_path: Path) -> None:
    saved("FluxPipeline", tmp_path)
    half = tensors(load(tmp_path, "fp16"))
    kept = {key for key, tensor in half.items() if tensor.dtype == torch.float32}
    assert kept and all(key.endswith("wo.weight") for key in kept)
    assert {tensor.dtype for key, tensor in half.items() if key not in kept} == {torch.float16}
    assert {tensor.dtype for tensor in tensors(load(tmp_path, "bf16")).values()} == {torch.bfloat16}


def test_float16_of_a_model_that_was_trained_in_bfloat16_is_warned_of(
    xl: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved("FluxPipeline", tmp_path)
    load(tmp_path, "bf16")
    load(xl, "fp16")
    assert "trained in bfloat16" not in caplog.text
    load(tmp_path, "fp16")
    assert "FLUX and T5 were trained in bfloat16" in caplog.text


def test_a_variant_is_loaded_for_its_precision_and_the_plain_weights_for_others(tmp_path: Path) -> None:
    plain = saved(XL, tmp_path)
    other = FAMILIES[XL].build().to(torch.float16)
    with torch.no_grad():
        other.unet.conv_in.weight.fill_(0.5)
    other.save_pretrained(tmp_path, variant="fp16")
    for precision, expected in (("fp32", plain), ("bf16", plain), ("fp16", other)):
        loaded = load(tmp_path, precision).unet.conv_in.weight
        assert torch.equal(loaded, expected.unet.conv_in.weight.to(loaded.dtype))


def test_a_variant_alone_is_converted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    FAMILIES[XL].build().to(torch.float16).save_pretrained(tmp_path, variant="fp16", max_shard_size="20KB")
    assert load(tmp_path, "fp16").unet.dtype == torch.float16
    assert "variant" not in caplog.text
    assert load(tmp_path, "fp32").unet.dtype == torch.float32
    assert "only weights of variant fp16 are there, which are converted" in caplog.text


def test_a_name_without_a_dot_is_refused_beside_a_variant_alone(tmp_path: Path) -> None:
    """diffusers raises an IndexError there."""
    saved(XL, tmp_path)
    (tmp_path / "tokenizer" / "LICENSE").write_text("yours")
    load(tmp_path)
    load(tmp_path, "fp16")
    FAMILIES[XL].build().to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    load(tmp_path)
    with pytest.raises(ModelError, match="tokenizer/LICENSE: diffusers finds no variant beside a name"):
        load(tmp_path, "fp16")


def test_what_does_not_fit_is_refused_with_both_figures_before_it_is_loaded(xl: Path) -> None:
    needed = sum(file.stat().st_size for file in xl.glob("*/*.safetensors"))
    with pytest.raises(ModelError) as caught:
        load(xl, free=lambda _device: 100_000)
    assert f"model = {xl}: its weights need {needed / 2**30:.1f} GiB in float32" in str(caught.value)
    assert "this machine has 0.0 GiB of memory free: use precision bf16" in str(caught.value)
    with pytest.raises(ModelError, match=r"its weights need 0\.0 GiB in bfloat16"):
        load(xl, "bf16", free=lambda _device: needed // 4)
    load(xl, "bf16", free=lambda _device: needed)
    load(xl, free=lambda _device: None)


def test_the_safety_checker_and_the_watermark_stay_out(xl: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(xl, copy)
    index = json.loads((copy / "model_index.json").read_text())
    index |= {"add_watermarker": True, "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    (copy / "model_index.json").write_text(json.dumps(index))
    assert load(copy).watermark is None
    saved("IFPipeline", tmp_path / "if")
    index = json.loads((tmp_path / "if" / "model_index.json").read_text())
    index["safety_checker"] = ["deepfloyd_if", "IFSafetyChecker"]
    (tmp_path / "if" / "model_index.json").write_text(json.dumps(index))
    assert load(tmp_path / "if").safety_checker is None


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("unet/mine.py", "is or names code"),
        ("tokenizer/nested/mine.py", "is or names code"),
        ("tokenizer_2/nested/tokenizer_config.json", "is or names code"),
    ],
)
def test_code_is_refused_wherever_it_lies(xl: Path, tmp_path: Path, file: str, said: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(xl, copy)
    (copy / file).parent.mkdir(exist_ok=True)
    (copy / file).write_text('{"auto_map": {}}')
    with pytest.raises(ModelError, match=f"{file}: {said}"):
        load(copy)


def test_a_component_without_a_folder_is_refused(xl: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(xl, copy)
    for file in (copy / "tokenizer_2").iterdir():
        file.rename(copy / file.name)
    (copy / "tokenizer_2").rmdir()
    with pytest.raises(ModelError, match="tokenizer_2: is missing"):
        load(copy)


def test_a_shard_that_is_missing_is_refused(tmp_path: Path) -> None:
    saved(XL, tmp_path, max_shard_size="20KB")
    next((tmp_path / "unet").glob("*-00002-of-*.safetensors")).unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_weights_that_the_files_lack_are_no_random_ones(xl: Path, tmp_path: Path, component: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(xl, copy)
    (file,) = (copy / component).glob("*.safetensors")
    weights = load_file(file)
    lacking = sorted(weights)[len(weights) // 2]
    del weights[lacking]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"lack 1 of its weights, ({component}\.)?{lacking} among them"):
        load(copy)


def test_pipelines_that_a_readme_names_are_not_loaded(
    xl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(xl, copy)
    monkeypatch.setattr("diffusers.StableDiffusionXLPipeline._load_connected_pipes", True)
    load(copy)
    (copy / "README.md").write_text("---\nprior:\n- someone/something\n---\n")
    with pytest.raises(ModelError, match="at no commit"):
        load(copy)


def test_every_library_that_an_index_may_name_is_diffusers_own() -> None:
    """diffusers imports a module by the name of one that it does not have."""
    for name in PARTS_OF_DIFFUSERS:
        assert getattr(pipelines, name).__name__ == f"diffusers.pipelines.{name}"


def test_loading_leaves_no_bar_and_no_word_in_the_log(
    xl: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    with caplog.at_level(logging.INFO):
        load(xl, "bf16")
    assert not caplog.records
    assert not capfd.readouterr().err
