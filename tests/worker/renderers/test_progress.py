"""A renderer that learns and measures shows that it moves: the stall limit ends only what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.model_files.model_folder import folder_revision
from jobs.settings import Settings
from tests.tiny.families import FAMILIES
from worker.engine.renderer import Pipeline
from worker.renderers.load_renderer import load_renderer
from worker.renderers.loading import Loading


@pytest.mark.parametrize(("model", "learned"), [("shapes-random", 0), ("folder", 20)])
def test_learning_and_measuring_give_signs_of_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, learned: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pipeline = Pipeline("shapes-random", "shapes-random-1", "fp32")
    if model == "folder":
        folder = tmp_path / "xl"
        FAMILIES["StableDiffusionXLPipeline"].build().save_pretrained(folder)
        pipeline = Pipeline(str(folder), folder_revision(folder), "fp32")
    signs: list[str] = []
    loading = Loading(lambda: signs.append(loading.text.partition(":")[0]))
    renderer = load_renderer(pipeline, Settings(device="cpu"), loading)
    assert signs.count(f"preparing {pipeline.model}") > learned
    before = len(signs)
    renderer.measure_slots(32, 32)
    assert len(signs) > before + 2, "three numbers of slots at least"
