"""A ControlNet is resolved to exact weights, and compared with the model that it works beside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ModelError
from jobs.models import further_models
from jobs.models.further_models import further_revision, resolve_controlnet
from jobs.models.models import BUILT_IN, ModelRef

COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def controlnet(folder: Path, kind: str = "ControlNetModel", **config: Any) -> Path:
    """A ControlNet's folder whose weights are no tensors."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": kind, **config}))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    return folder


def model(folder: Path, pipeline: str, **config: Any) -> ModelRef:
    """A model in a folder with a denoiser of this configuration."""
    name = "transformer" if pipeline.startswith("Flux") else "unet"
    (folder / name).mkdir(parents=True)
    (folder / name / "config.json").write_text(json.dumps(config))
    return ModelRef(str(folder), folder.name, "sha256:0", None, None, pipeline=pipeline)


SHAPES = BUILT_IN["shapes"]


def test_a_folders_revision_follows_from_its_configuration_and_weights_alone(tmp_path: Path) -> None:
    folder = controlnet(tmp_path / "edges")
    found = resolve_controlnet(str(folder), None, SHAPES)
    assert (found.model, found.label, found.revision) == (str(folder), "edges", further_revision(folder))
    (folder / "README.md").write_text("more")
    assert further_revision(folder) == found.revision
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"others")
    assert further_revision(folder) != found.revision
    with pytest.raises(ModelError, match="remove `revision`, or name the ControlNet that was meant"):
        resolve_controlnet(str(folder), found.revision, SHAPES)


def test_a_hub_id_at_a_commit_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Files:
        def __init__(self, name: str, commit: str) -> None:
            assert (name, commit) == ("org/edges", COMMIT)

        def __call__(self, name: str) -> Any:
            return {"_class_name": "ControlNetModel"}

    monkeypatch.setattr(further_models, "HubFiles", Files)
    found = resolve_controlnet("org/edges", COMMIT, SHAPES)
    assert (found.model, found.label, found.revision) == ("org/edges", "org/edges", COMMIT)


def test_what_is_no_controlnets_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "none", "there is no such folder"),
        (tmp_path, "holds no config.json: name the folder of a ControlNet"),
    ):
        with pytest.raises(ModelError, match=words):
            resolve_controlnet(str(path), None, SHAPES)
    folder = controlnet(tmp_path / "pickled")
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds no \.safetensors: weights in other files may be pickles"):
        resolve_controlnet(str(folder), None, SHAPES)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("canny.safetensors", "is a single file, and ControlNets are read from folders: name one as"),
        ("canny.pth", "is a pickle, which runs code when it is loaded: name a ControlNet with .safetensors"),
    ],
)
def test_a_single_file_is_refused_with_what_makes_a_folder_of_it(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / name).write_bytes(b"weights")
    for written in (str(tmp_path / name), name):
        with pytest.raises(ModelError, match=f"^controlnet = {written}: {words}"):
            resolve_controlnet(written, None, SHAPES)
    folder = controlnet(tmp_path / "v1.safetensors")
    assert resolve_controlnet(str(folder), None, SHAPES).label == "v1.safetensors"


@pytest.mark.parametrize(
    ("pipeline", "kind", "words"),
    [
        (
            "StableDiffusionPipeline",
            "FluxControlNetModel",
            "is a FluxControlNetModel, and m, a StableDiffusionPipeline, takes ControlNetModel: name one",
        ),
        ("FluxPipeline", "ControlNetModel", "a FluxPipeline, takes FluxControlNetModel: name one"),
        (
            "StableDiffusionXLPipeline",
            "ControlNetUnionModel",
            "is a ControlNetUnionModel, and m, a StableDiffusionXLPipeline, takes ControlNetModel: name one",
        ),
        ("LuminaPipeline", "ControlNetModel", "m is a LuminaPipeline, which takes none here: remove it"),
    ],
)
def test_a_controlnet_of_a_class_that_the_model_does_not_take_is_refused(
    tmp_path: Path, pipeline: str, kind: str, words: str
) -> None:
    folder = controlnet(tmp_path / "edges", kind)
    with pytest.raises(ModelError) as raised:
        resolve_controlnet(str(folder), None, model(tmp_path / "m", pipeline))
    assert str(raised.value).startswith("controlnet = edges: ")
    assert words in str(raised.value)


def test_a_controlnet_of_another_width_is_refused_where_both_say_it(tmp_path: Path) -> None:
    wide = controlnet(tmp_path / "wide", cross_attention_dim=2048, block_out_channels=[320, 640, 1280])
    plain = model(tmp_path / "m", "StableDiffusionPipeline", cross_attention_dim=768)
    with pytest.raises(ModelError) as raised:
        resolve_controlnet(str(wide), None, plain)
    assert str(raised.value) == (
        "controlnet = wide: has cross_attention_dim = 2048, and m 768: it was made for another model"
    )
    equal = model(tmp_path / "n", "StableDiffusionXLPipeline", cross_attention_dim=2048)
    assert resolve_controlnet(str(wide), None, equal).label == "wide"
    # A worker finds out where the class is not known.
    assert resolve_controlnet(str(wide), None, replace(plain, pipeline=None)).label == "wide"
