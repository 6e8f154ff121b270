"""Models that nobody saved: whatever lies where a file should, one message says so, at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from jobs.errors import ModelError
from jobs.model_files.config_figures import latent_scale, whole_figure
from jobs.model_files.hub import HubFiles
from jobs.model_files.safetensors_header import HeaderError, header_of
from jobs.models.further_models import resolve_controlnet
from jobs.models.models import BUILT_IN, resolve_model
from tests.odd_files import DEEP, ODD, cheap, put

COMMIT = "133a221b8aa7292a167afc5127cb63fb5005638b"


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def _model(folder: Path, kind: str = "StableDiffusionPipeline") -> Path:
    denoiser = "unet" if kind.startswith("Stable") else "transformer"
    for component in (denoiser, "vae", "tokenizer", "scheduler"):
        (folder / component).mkdir(parents=True)
    index = {"_class_name": kind}
    index |= {name: ["diffusers", "X"] for name in (denoiser, "vae", "tokenizer", "scheduler")}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / denoiser / "config.json").write_text('{"in_channels": 4, "sample_size": 64}')
    (folder / denoiser / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    (folder / "vae" / "config.json").write_text('{"block_out_channels": [16, 32, 64, 64]}')
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    return folder


FILES = {
    "StableDiffusionPipeline": [
        "model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json",
        "tokenizer/vocab.json", "tokenizer/chat_template.jinja", "unet/stalled_config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ],
    "FluxPipeline": [
        "model_index.json", "transformer/config.json", "vae/config.json", "tokenizer/vocab.json",
        "transformer/diffusion_pytorch_model.safetensors",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "sparse"])
@pytest.mark.parametrize("name", FILES)
def test_a_model_with_something_else_in_the_place_of_a_file_is_refused(
    tmp_path: Path, name: str, kind: str
) -> None:
    for number, file in enumerate(FILES[name]):
        folder = _model(tmp_path / f"m{number}", name)
        put(folder / file, kind)
        with cheap(tmp_path), pytest.raises(ModelError) as caught:
            resolve_model(str(folder))
        assert "\n" not in str(caught.value)
        missing = file == "model_index.json"
        assert ("holds no model_index.json" if missing else str(folder / file)) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_without_end_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    for file in FILES[name]:
        if file.endswith("config.json") or file == "model_index.json":
            folder = _model(tmp_path / "m", name)
            put(folder / file, "sparse")
            with cheap(tmp_path), pytest.raises(ModelError, match=r"larger than (8|256) MiB") as caught:
                resolve_model(str(folder))
            assert str(folder / file) in str(caught.value)
            shutil.rmtree(folder)
    folder = _model(tmp_path / "m", name)
    put(folder / "tokenizer/vocab.json", "sparse")
    with cheap(tmp_path), pytest.raises(ModelError, match=r"vocab\.json: is larger than 256 MiB"):
        resolve_model(str(folder))


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "vae/config.json"])
@pytest.mark.parametrize("text", [DEEP, b'{"a":' * 100_000, b"1" * 5000, b"[1e999]", b"\xff"])
def test_a_configuration_that_is_no_json_or_no_object_is_refused(
    tmp_path: Path, file: str, text: bytes
) -> None:
    folder = _model(tmp_path / "m")
    (folder / file).write_bytes(text)
    with cheap(tmp_path), pytest.raises(ModelError) as caught:
        resolve_model(str(folder))
    assert "\n" not in str(caught.value)


ODD_FIGURES = ["1e999", "-1e999", "NaN", "1e300", "-4", "0", "[]", '"x"', "{}", "null", "true", '"9" ']


@pytest.mark.parametrize("figure", ODD_FIGURES)
def test_a_figure_that_no_model_has_is_refused_or_not_taken(tmp_path: Path, figure: str) -> None:
    folder = _model(tmp_path / "m")
    (folder / "unet/config.json").write_text(f'{{"in_channels": {figure}}}')
    with cheap(tmp_path):
        try:
            assert resolve_model(str(folder)).latent_channels in (1, 9)
        except ModelError as error:
            assert "in_channels" in str(error)
    for text in (
        f'{{"in_channels": 4, "sample_size": {figure}}}',
        f'{{"in_channels": 4, "sample_size": [{figure}, {figure}]}}',
        f'{{"in_channels": 4, "sample_size": 64, "_diffusers_version": {figure}}}',
    ):
        (folder / "unet/config.json").write_text(text)
        with cheap(tmp_path):
            assert resolve_model(str(folder)).latent_channels == 4
    flux = _model(tmp_path / "flux", "FluxPipeline")
    for config in ("vae/config.json", "scheduler/scheduler_config.json", "transformer/config.json"):
        (flux / config).write_text(f'{{"block_out_channels": {figure}, "use_dynamic_shifting": {figure}}}')
        with cheap(tmp_path):
            assert resolve_model(str(flux)).pipeline == "FluxPipeline"


def test_an_autoencoder_of_thousands_of_blocks_is_refused(tmp_path: Path) -> None:
    folder = _model(tmp_path / "m")
    (folder / "vae/config.json").write_text(json.dumps({"block_out_channels": [1] * 100_000}))
    with cheap(tmp_path), pytest.raises(ModelError, match="block_out_channels"):
        resolve_model(str(folder))
    assert (latent_scale([1, 2, 3, 4]), latent_scale([1, 2], 0), whole_figure(4.0)) == (8, 4, 4)


@pytest.mark.parametrize("kind", ODD)
def test_a_header_is_read_of_plain_files_alone(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "x.safetensors", kind)
    with cheap(tmp_path), pytest.raises(HeaderError):
        header_of(tmp_path / "x.safetensors")
    with cheap(tmp_path), pytest.raises(ModelError) as caught:
        resolve_model(str(tmp_path / "x.safetensors"))
    assert str(tmp_path / "x.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        DEEP,
        b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,1e999]}}',
    ],
)
def test_a_header_that_no_program_writes_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with cheap(tmp_path), pytest.raises(HeaderError, match="is no safetensors file"):
        header_of(path)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("file", ["config.json", "diffusion_pytorch_model.safetensors.index.json"])
def test_a_controlnet_of_odd_files_is_refused(tmp_path: Path, file: str, kind: str) -> None:
    if kind == "sparse" and "index" in file:
        return  # read to be hashed, as a stream
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    put(folder / file, kind)
    with cheap(tmp_path), pytest.raises(ModelError, match="controlnet"):
        resolve_controlnet(str(folder), None, BUILT_IN["shapes"])


@pytest.mark.parametrize("kind", ODD)
def test_what_lies_in_the_hubs_cache_is_read_as_carefully(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    def no_network(*_: object, **__: object) -> object:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr("huggingface_hub.utils.get_session", no_network)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    repository = tmp_path / "hub" / "models--org--name"
    for name in (f"snapshots/{COMMIT}/model_index.json", "refs/main"):
        (repository / name).parent.mkdir(parents=True)
        put(repository / name, kind)
    with cheap(tmp_path), pytest.raises(KeyError):
        HubFiles("org/name", COMMIT)("model_index.json")
    with cheap(tmp_path), pytest.raises(ModelError, match="the local cache does not know"):
        resolve_model("org/name")


def test_a_sound_single_file_is_not_refused_for_its_header(tmp_path: Path) -> None:
    import numpy as np

    save_file({f"t{n}": np.zeros(1, np.float32) for n in range(5_000)}, tmp_path / "x.safetensors")
    assert len(header_of(tmp_path / "x.safetensors").tensors) == 5_000
