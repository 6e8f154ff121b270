"""The layers of models, read from the headers of their weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.models.layer_shapes import layer_shapes
from jobs.models.models import BUILT_IN, ModelRef, resolve_model
from tests.lora_headers import SD_LAYERS, stable_diffusion


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_folders_layers_are_called_by_component_and_module(tmp_path: Path) -> None:
    model = resolve_model(str(stable_diffusion(tmp_path / "sd")))
    assert layer_shapes(model, ("unet", "text_encoder")) == SD_LAYERS
    only = {name: shape for name, shape in SD_LAYERS.items() if name.startswith("unet.")}
    assert layer_shapes(model, ("unet", "text_encoder_2")) == only


def test_a_hub_model_has_layers_once_it_is_in_the_cache(tmp_path: Path) -> None:
    commit = "1" * 40
    model = ModelRef("org/name", "org/name", commit, None, None)
    assert layer_shapes(model, ("unet",)) == {}
    stable_diffusion(tmp_path / "hub/models--org--name/snapshots" / commit)
    assert layer_shapes(model, ("unet", "text_encoder")) == SD_LAYERS


def test_weights_that_cannot_be_read_and_built_in_models_are_left_to_the_worker(tmp_path: Path) -> None:
    folder = stable_diffusion(tmp_path / "sd")
    model = resolve_model(str(folder))
    (folder / "unet/model.safetensors").write_bytes(b"")
    assert layer_shapes(model, ("unet",)) == {}
    assert layer_shapes(BUILT_IN["shapes"], ("unet",)) == {}
