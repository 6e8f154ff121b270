"""ControlNets of folders: harmless files, the exact revision, the class that the model takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel

from jobs.errors import ModelError
from jobs.models.further_models import further_revision
from tests.tiny.controlnets import controlnet_of
from tests.tiny.families import FAMILIES
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import FurtherModel
from worker.renderers.controlnets import load_controlnets

CPU = torch.device("cpu")
FP32, BF16 = (resolve_precision(name, CPU) for name in ("fp32", "bf16"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edges")
    controlnet_of(FAMILIES["StableDiffusionXLPipeline"].build()).save_pretrained(folder)  # type: ignore[operator]
    return folder


def named(folder: Path, revision: str | None = None) -> FurtherModel:
    return FurtherModel("controlnet", str(folder), further_revision(folder) if revision is None else revision)


def test_a_folder_is_loaded_in_the_precision_s_format(folder: Path) -> None:
    saved = ControlNetModel.from_pretrained(folder)
    for precision in (FP32, BF16):
        found = load_controlnets([named(folder)], precision, CPU)
        assert found.revisions == (further_revision(folder),)
        [loaded] = found.modules.values()
        assert not loaded.training
        for name, weight in saved.named_parameters():
            assert torch.equal(loaded.get_parameter(name), weight.to(precision.weights))


def test_several_keep_their_order_and_one_given_twice_counts_twice(folder: Path) -> None:
    found = load_controlnets([named(folder), named(folder)], FP32, CPU)
    assert [*found.modules] == [str(folder), f"{folder} (2)"]
    assert len(found.revisions) == 2


def test_other_models_beside_a_pipeline_are_left_to_others(folder: Path) -> None:
    beside = FurtherModel("image_encoder", "someone/encoder", "0" * 40)
    assert [*load_controlnets([beside], FP32, CPU).modules] == []


def test_another_revision_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"asks for revision sha256:0, this worker holds sha256:"):
        load_controlnets([named(folder, "sha256:0")], FP32, CPU)


def test_weights_that_are_missing_or_damaged_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = folder / "diffusion_pytorch_model.safetensors"
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelError, match=r"holds no \.safetensors"):
        load_controlnets([named(tmp_path, "sha256:0")], FP32, CPU)
    (tmp_path / weights.name).write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_controlnets([named(tmp_path)], FP32, CPU)


@pytest.mark.parametrize("name", ["NoSuchModel", None])
def test_a_class_that_diffusers_does_not_have_is_refused(
    folder: Path, tmp_path: Path, name: str | None
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": name}), "utf-8")
    with pytest.raises(ModelError, match=f"names the class {name!r}"):
        load_controlnets([named(tmp_path)], FP32, CPU)


def test_a_hub_id_is_of_a_commit() -> None:
    with pytest.raises(ModelError, match=r"revision = 'main' is no commit"):
        load_controlnets([FurtherModel("controlnet", "someone/edges", "main")], FP32, CPU)
