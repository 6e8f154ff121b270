"""The files of models beside a pipeline: what is told while they come and are checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from jobs.models.further_models import further_revision
from tests.ip_adapter_files import save_image_encoder
from tests.worker.renderers.hub import COMMIT, MODEL, serving
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import FurtherModel
from worker.renderers.further_files import further_files
from worker.renderers.loading import Loading

FP32 = resolve_precision("fp32", torch.device("cpu"))


class Noting(Loading):
    """Keeps what is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.files = self.size = 0

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        super().advance(files=files, size=size)
        self.files, self.size = self.files + files, self.size + size


@pytest.mark.parametrize("where", ["hub", "folder"])
def test_files_and_bytes_are_counted_as_they_are_fetched_or_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = save_image_encoder(tmp_path / "encoder")
    read = [folder / "config.json", folder / "model.safetensors"]
    loading = Noting()
    with serving(folder) as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        if where == "hub":
            one = FurtherModel("image_encoder", MODEL, COMMIT)
        else:
            one = FurtherModel("image_encoder", str(folder), further_revision(folder, "image_encoder"))
        found = further_files(one, FP32, loading)
    assert [file.read_bytes() for file in found.tensors] == [read[1].read_bytes()]
    assert sorted(hub.asked) == (["config.json", "model.safetensors"] if where == "hub" else [])
    assert loading.size == sum(file.stat().st_size for file in read)
    assert loading.files >= len(read)
