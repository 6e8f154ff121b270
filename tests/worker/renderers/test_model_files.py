"""Models of the hub: what is downloaded, what is told meanwhile, and what is not asked for again."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from jobs.errors import ModelError
from tests.tiny.families import FAMILIES
from tests.waiting import LONGEST
from tests.worker.renderers.hub import COMMIT, MODEL, Hub, serving
from worker.renderers.loading import Loading
from worker.renderers.pipelines import load_pipeline


class Noting(Loading):
    """Keeps what is counted, and the text after each count."""

    def __init__(self) -> None:
        super().__init__()
        self.files = self.size = 0
        self.texts: list[str] = []

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        super().advance(files=files, size=size)
        self.files, self.size = self.files + files, self.size + size
        self.texts.append(self.text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL in plain and fp16 weights, with what other programs left beside."""
    path = tmp_path_factory.mktemp("models") / "xl"
    pipeline = FAMILIES["StableDiffusionXLPipeline"].build()
    pipeline.save_pretrained(path)
    pipeline.to(torch.float16)
    pipeline.save_pretrained(path, variant="fp16")
    for file in (path / "tokenizer_2").iterdir():
        # The hub's cache holds files of equal contents once.
        file.write_text(file.read_text() + "\n")
    (path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (path / "unet" / "mine.py").write_text("code")
    (path / "sd_xl_base_1.0.safetensors").write_bytes(b"a checkpoint of another form")
    (path / "README.md").write_text("a model")
    return path


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub has the folder, and the cache is empty."""
    with serving(folder) as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def test_a_hub_model_is_downloaded_without_what_is_not_loaded(hub: Hub, folder: Path) -> None:
    loading = Noting()
    pipeline = load_pipeline(MODEL, COMMIT, "fp32", "cpu", loading=loading)
    assert type(pipeline).__name__ == "StableDiffusionXLPipeline"
    assert loading.text == ""
    weights = {file.relative_to(folder).as_posix() for file in folder.glob("*/*model.safetensors")}
    assert len(weights) == 4
    settings = {
        file.relative_to(folder).as_posix() for file in folder.glob("*/*") if file.suffix in (".json", ".txt")
    }
    assert sorted(hub.asked) == sorted({"model_index.json", "README.md"} | weights | settings)
    assert loading.files == len(hub.asked)
    assert loading.size == sum((folder / name).stat().st_size for name in hub.asked)


def test_what_is_downloaded_is_told_while_it_lasts(hub: Hub, folder: Path) -> None:
    hub.gate.clear()
    loading = Loading()
    thread = threading.Thread(
        target=load_pipeline, args=(MODEL, COMMIT, "fp32", "cpu"), kwargs={"loading": loading}
    )
    thread.start()
    assert hub.halfway.wait(LONGEST)
    said = loading.text
    hub.gate.set()
    thread.join()
    assert said.startswith(f"downloading {MODEL}: ")
    files = len(list(folder.glob("*/*.json"))) + len(list(folder.glob("*/*.txt"))) + 5
    assert f" of {files} files, " in said
    assert " MB, " in said and said.endswith(" s")
    assert loading.text == ""


def test_nothing_is_asked_of_the_hub_when_all_is_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    load_pipeline(MODEL, COMMIT, "fp32", "cpu")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub.asked.clear()
    loading = Noting()
    load_pipeline(MODEL, COMMIT, "bf16", "cpu", loading=loading)
    assert hub.asked == []
    assert not any("downloading" in text for text in loading.texts)


def test_a_cache_that_does_not_know_the_hubs_files_is_loaded_with_a_warning(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Older versions of the hub's client kept no list."""
    load_pipeline(MODEL, COMMIT, "fp32", "cpu")
    shutil.copytree(tmp_path / "hub", tmp_path / "old", symlinks=True, ignore=lambda *_given: ["trees"])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "old"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "the cache does not say" not in caplog.text
    load_pipeline(MODEL, COMMIT, "fp32", "cpu")
    assert f"model = {MODEL}: the cache does not say which files the hub has" in caplog.text


def test_half_precision_downloads_the_variant_and_full_precision_the_plain_weights(hub: Hub) -> None:
    load_pipeline(MODEL, COMMIT, "fp16", "cpu")
    taken = sorted(name for name in hub.asked if name.endswith(".safetensors"))
    assert taken and all(".fp16." in name for name in taken)
    hub.asked.clear()
    load_pipeline(MODEL, COMMIT, "fp32", "cpu")
    # Only what is missing; and the fp16 weights in the cache are not taken for those of the commit.
    assert len(hub.asked) == 4
    assert not any(".fp16." in name for name in hub.asked)


def test_a_model_of_pickles_is_refused_before_anything_is_downloaded(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    hub.folder = tmp_path / "pickles"
    (hub.folder / "unet").mkdir(parents=True)
    (hub.folder / "model_index.json").write_bytes((folder / "model_index.json").read_bytes())
    (hub.folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelError, match=f"{MODEL}: unet: its weights are pickles"):
        load_pipeline(MODEL, COMMIT, "fp32", "cpu")
    assert hub.asked == ["model_index.json"]


def test_another_class_than_diffusers_has_is_refused_before_anything_is_downloaded(
    hub: Hub, tmp_path: Path
) -> None:
    hub.folder = tmp_path / "other"
    hub.folder.mkdir()
    (hub.folder / "model_index.json").write_text('{"_class_name": "NextYearsPipeline"}')
    with pytest.raises(ModelError, match=f"{MODEL}: is a NextYearsPipeline, which is not rendered"):
        load_pipeline(MODEL, COMMIT, "fp32", "cpu")
    assert hub.asked == ["model_index.json"]
