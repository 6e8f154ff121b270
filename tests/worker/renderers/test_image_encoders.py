"""An image encoder is loaded from a folder or the hub's cache, and what is none is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from jobs.errors import ModelError
from jobs.models.further_models import further_revision
from tests.ip_adapter_files import PROJECTED, image_encoder, save_image_encoder
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import FurtherModel
from worker.renderers import further_files
from worker.renderers.image_encoders import load_image_encoder

CPU = torch.device("cpu")
FP32 = resolve_precision("fp32", CPU)
COMMIT = "a" * 40


def named(folder: Path) -> FurtherModel:
    return FurtherModel("image_encoder", str(folder), further_revision(folder, "image_encoder"))


def test_it_sees_pictures_as_that_of_diffusers_does(tmp_path: Path) -> None:
    one = named(save_image_encoder(tmp_path / "encoder"))
    beside = FurtherModel("controlnet", "someone/edges", COMMIT)
    found = load_image_encoder([beside, one], FP32, CPU)
    assert found is not None and found.revision == one.revision
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 32, 3), np.uint8))
    seen = found.processor(picture, return_tensors="pt").pixel_values
    assert seen.shape == (1, 3, 32, 32)
    with torch.no_grad():
        given = found.module(seen).image_embeds
        assert given.shape == (1, PROJECTED)
        assert torch.equal(given, image_encoder()(seen).image_embeds)
    half = load_image_encoder([one], resolve_precision("bf16", CPU), CPU)
    assert half is not None and half.module.dtype == torch.bfloat16
    assert load_image_encoder([beside], FP32, CPU) is None


def test_of_the_hub_it_is_in_a_folder_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of h94/IP-Adapter, whose folder holds a pickle too and beside which lie adapters."""
    save_image_encoder(tmp_path / "models/image_encoder")
    paths = ["README.md", "models/ip.safetensors", "models/image_encoder/pytorch_model.bin"]
    paths += [f"models/image_encoder/{name}" for name in ("config.json", "model.safetensors")]
    asked: list[list[str]] = []

    def snapshot(model: str, *, revision: str, allow_patterns: list[str], tqdm_class: object) -> str:
        assert (model, revision) == ("h94/IP-Adapter", COMMIT)
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(further_files, "snapshot_download", snapshot)
    tree = [SimpleNamespace(path=path) for path in paths]
    monkeypatch.setattr(further_files, "get_cached_repo_tree", lambda model, revision: tree)
    revision = f"{COMMIT}:models/image_encoder"
    found = load_image_encoder([FurtherModel("image_encoder", "h94/IP-Adapter", revision)], FP32, CPU)
    assert found is not None and found.revision == revision
    assert asked == [["models/image_encoder/config.json"]], "the weights are there"


def test_what_is_none_lacks_weights_or_is_another_is_refused(tmp_path: Path) -> None:
    folder = save_image_encoder(tmp_path / "encoder")
    before = named(folder)
    weights = load_file(folder / "model.safetensors")
    removed = next(name for name in weights if name.endswith("fc1.weight"))
    save_file(
        {name: tensor for name, tensor in weights.items() if name != removed}, folder / "model.safetensors"
    )
    for one, message in (
        (before, "the job asks for revision sha256:.*, this worker holds sha256:"),
        (named(folder), "its files lack 1 of its weights, .*fc1.weight among them"),
        (FurtherModel("image_encoder", "someone/clip", "main"), "revision = 'main' is no commit"),
    ):
        with pytest.raises(ModelError, match=message):
            load_image_encoder([one], FP32, CPU)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "siglip_vision_model"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="says model_type 'siglip_vision_model', not 'clip_vision_model'"):
        load_image_encoder([named(folder)], FP32, CPU)
