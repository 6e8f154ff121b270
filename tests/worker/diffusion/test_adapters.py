"""What a pipeline carries for a while, and what it carries after that."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.adapters import NO_ADAPTERS, Adapters
from jobs.errors import InputError
from tests.embedding_files import FolderInputs, embedding, listed, vectors
from worker.diffusion.adapters import AdapterSwitch
from worker.renderers.shapes_random import build

FILES = 150
"""Twice as many are more than a switch remembers."""


def carried(folder: Path, width: int, first: str) -> tuple[Adapters, FolderInputs]:
    """So many embeddings, and where they are."""
    folder.mkdir()
    inputs = FolderInputs(folder)
    tokens = [f"{first}{number:03}x" for number in range(FILES)]
    seeds = range(FILES) if first == "a" else range(FILES, 2 * FILES)
    files = [inputs.add(embedding(x=vectors(1, width, seed))) for seed in seeds]
    return Adapters(textual_inversions=listed(*zip(tokens, files, strict=True))), inputs


def test_what_was_carried_comes_back_though_it_was_forgotten_meanwhile(tmp_path: Path) -> None:
    pipeline = build()
    width = pipeline.text_encoder.config.hidden_size
    switch = AdapterSwitch(pipeline)
    before, inputs = carried(tmp_path / "a", width, "a")
    meanwhile, others = carried(tmp_path / "b", width, "b")
    switch.switch(before, inputs)
    known = pipeline.tokenizer("a007x").input_ids
    with switch.carrying(meanwhile, others):
        assert switch.on == meanwhile
        assert pipeline.tokenizer("a007x").input_ids != known
    assert switch.on == before
    assert pipeline.tokenizer("a007x").input_ids == known


def test_what_cannot_be_carried_leaves_what_was_carried_before(tmp_path: Path) -> None:
    pipeline = build()
    switch = AdapterSwitch(pipeline)
    before, inputs = carried(tmp_path / "a", pipeline.text_encoder.config.hidden_size, "a")
    switch.switch(before, inputs)
    missing = Adapters(textual_inversions=listed(("<gone>", "0" * 64)))
    with pytest.raises(InputError, match="is missing"), switch.carrying(missing, inputs):
        raise AssertionError("nothing is carried")
    assert switch.on == before
    switch.switch(NO_ADAPTERS, inputs)
    assert switch.on == NO_ADAPTERS
