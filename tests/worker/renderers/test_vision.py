"""A model that needs torchvision is refused with the remedy where that is missing or of another build."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ModelError
from jobs.model_files.model_folder import folder_revision
from tests.tiny.families import FAMILIES
from worker.renderers.pipelines import load_pipeline
from worker.renderers.vision import check_vision


@pytest.fixture
def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    yield


class OfAnotherBuild(MetaPathFinder):
    """Finds a torchvision that was built for another torch."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.usefixtures("without_torchvision")
@pytest.mark.parametrize(
    ("family", "part", "processor"),
    [
        ("Flux2Pipeline", "tokenizer", "PixtralProcessor"),
        ("LongCatImagePipeline", "text_processor", "Qwen2_5_VLProcessor"),
    ],
)
def test_a_folder_whose_processor_needs_it_is_refused_before_anything_is_loaded(
    tmp_path: Path, family: str, part: str, processor: str
) -> None:
    FAMILIES[family].build().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {part: ["transformers", processor]}))
    with pytest.raises(ModelError) as caught:
        load_pipeline(str(tmp_path), folder_revision(tmp_path), "fp32", "cpu")
    assert f"its {processor} needs torchvision, which is not installed: pip install" in str(caught.value)
    assert "'imagemill[vision]'" in str(caught.value)


@pytest.mark.usefixtures("without_torchvision")
def test_a_pipeline_that_uses_it_itself_is_refused() -> None:
    with pytest.raises(ModelError, match=r"model = \./om: its OmniGenPipeline needs torchvision"):
        check_vision("./om", "OmniGenPipeline", ["LlamaTokenizer"])


def test_one_that_was_built_for_another_torch_is_told_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(sys, "meta_path", [OfAnotherBuild(), *sys.meta_path])
    with pytest.raises(ModelError, match=r"does not fit torch .* does not exist"):
        check_vision("./om", "Flux2Pipeline", ["Qwen3VLProcessor"])


@pytest.mark.usefixtures("without_torchvision")
@pytest.mark.parametrize(
    "part",
    ["CLIPImageProcessor", "SiglipImageProcessor", "GlmImageProcessor", "Qwen2Tokenizer", "NoProcessor"],
)
def test_a_part_that_does_without_it_passes(part: str) -> None:
    assert check_vision("./m", "FluxPipeline", [part]) is None  # type: ignore[func-returns-value]
