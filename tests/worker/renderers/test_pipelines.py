from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jobs.errors import ModelError
from jobs.model_files.model_folder import folder_revision
from worker.renderers import pipelines
from worker.renderers.pipelines import load_model, load_pipeline
from worker.renderers.shapes_random import build

SIZE = {"height": 64, "width": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small"
    build().save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub is out of reach, as the library itself has it, and its cache is empty."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_folder_paints_what_the_built_in_model_paints(
    folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"num_inference_steps": 2, "seeds": 1, "progress": False, **SIZE}
    built_in = load_model("shapes-random", "shapes-random-1", "auto", "cpu")
    loaded = load_model(str(folder), folder_revision(folder), "auto", "cpu")
    assert built_in.precision.name == "fp32"
    for name in ("LMS", "DDIM", "PNDM"):
        ours = loaded.prompt_to_img("a cat", scheduler=name, **settings)[0]
        assert ours.tobytes() == built_in.prompt_to_img("a cat", scheduler=name, **settings)[0].tobytes()
    assert not caplog.records
    assert not capfd.readouterr().err


def test_files_in_half_precision_load_whole_in_the_precision_asked_for(tmp_path: Path) -> None:
    build().to(torch.float16).save_pretrained(tmp_path)
    model = load_model(str(tmp_path), folder_revision(tmp_path), "fp32", "cpu")
    parts = (model.unet, model.vae, model.text_encoder)
    assert {tensor.dtype for part in parts for tensor in part.parameters()} == {torch.float32}
    half = load_model(str(tmp_path), folder_revision(tmp_path), "bf16", "cpu")
    assert half.unet.dtype == torch.bfloat16


def test_both_schedulers_have_the_models_own_noise_schedule(folder: Path) -> None:
    model = load_model(str(folder), folder_revision(folder), "auto", "cpu")
    assert model.scheduler_LMS.config.beta_schedule == "scaled_linear"
    assert model.scheduler_DDIM.config.set_alpha_to_one is False
    assert model.scheduler_DDIM.config.clip_sample is False


def test_another_revision_is_refused_with_both_named(folder: Path) -> None:
    wrong = "sha256:" + "0" * 64
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), wrong, "auto", "cpu")
    assert wrong in str(caught.value)
    assert folder_revision(folder) in str(caught.value)
    with pytest.raises(ModelError, match="shapes-random-1"):
        load_model("shapes-random", "shapes-random-0", "auto", "cpu")


@pytest.mark.parametrize(
    ("model", "said"),
    [("shapes", "asks for revision any"), ("instant", "use shapes"), ("/no/such/folder", "model_index")],
)
def test_a_model_that_is_not_there_is_refused_with_the_remedy(model: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(model, "any", "auto", "cpu")


def test_a_hub_id_is_asked_for_at_a_commit_only() -> None:
    with pytest.raises(ModelError, match="'main' is no commit"):
        load_model("someone/something", "main", "auto", "cpu")


def test_a_hub_model_that_cannot_be_fetched_is_one_clear_message() -> None:
    with pytest.raises(ModelError) as caught:
        load_model("someone/something", "0" * 40, "auto", "cpu")
    assert "someone/something" in str(caught.value)
    assert "HF_TOKEN" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["NoSuchPipeline", "UNet2DConditionModel", "DiffusionPipeline", "WanPipeline", "not a name"]
)
def test_a_class_that_is_not_rendered_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ModelError, match=f"is a {name}, which is not rendered"):
        load_pipeline(str(tmp_path), folder_revision(tmp_path), "auto", "cpu")


def test_weights_that_are_missing_or_no_safetensors_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"cut" * 100)
    with pytest.raises(ModelError, match="safetensors"):
        load_model(str(copy), folder_revision(copy), "auto", "cpu")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="safetensors"):
        load_model(str(copy), folder_revision(copy), "auto", "cpu")


class _Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(
    ("component", "name"),
    [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")],
)
def test_a_pickle_in_the_place_of_weights_is_refused_and_not_opened(
    folder: Path, tmp_path: Path, component: str, name: str
) -> None:
    copy, burst = tmp_path / "copy", tmp_path / "burst"
    shutil.copytree(folder, copy)
    (copy / component / f"{name}.safetensors").unlink()
    pickled = name.replace("model", "pytorch_model") if component == "text_encoder" else name
    torch.save(_Bomb(burst), copy / component / f"{pickled}.bin")
    with pytest.raises(ModelError, match=f"{component}: its weights are pickles"):
        load_model(str(copy), folder_revision(copy), "auto", "cpu")
    assert not burst.exists()


@pytest.mark.parametrize(
    ("component", "weights", "pickled"),
    [
        ("unet", "diffusion_pytorch_model", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model", "diffusion_pytorch_model"),
        ("text_encoder", "model", "pytorch_model"),
    ],
)
def test_a_sound_pickle_beside_other_safetensors_than_those_that_are_loaded_is_not_loaded(
    folder: Path, tmp_path: Path, component: str, weights: str, pickled: str
) -> None:
    copy = tmp_path / "copy" / component
    shutil.copytree(folder, copy.parent)
    sound = copy / f"{weights}.safetensors"
    torch.save(load_file(sound), copy / f"{pickled}.bin")
    sound.rename(copy / "others.safetensors")
    with pytest.raises(ModelError, match=r"cannot be loaded: (?s:.*) weights"):
        load_model(str(copy.parent), folder_revision(copy.parent), "auto", "cpu")


def test_code_in_a_model_is_not_run_also_where_nobody_looked_for_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, ran = tmp_path / "copy", tmp_path / "ran"
    shutil.copytree(folder, copy)
    (copy / "unet" / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: ...\n")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"unet": ["mine", "Mine"]}))
    monkeypatch.setattr(pipelines, "check_harmless", lambda _folder: None)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(copy), folder_revision(copy), "auto", "cpu")
    assert not ran.exists()


def test_code_in_a_model_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    copy, ran = tmp_path / "copy", tmp_path / "ran"
    shutil.copytree(folder, copy)
    (copy / "unet" / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: ...\n")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"unet": ["mine", "Mine"]}))
    with pytest.raises(ModelError, match="unet is of 'mine'"):
        load_model(str(copy), folder_revision(copy), "auto", "cpu")
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": ["mine", "Mine"]}))
    with pytest.raises(ModelError, match=r"names no _class_name, but .'mine', 'Mine'"):
        load_model(str(copy), folder_revision(copy), "auto", "cpu")
    assert not ran.exists()
