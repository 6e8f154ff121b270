from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tools.shapes.progress import (
    changed,
    digest,
    half_cosine,
    load_checkpoint,
    log,
    read_log,
    rewind_log,
    save_checkpoint,
    trapezoid,
)


def test_rates_rise_to_their_peak_and_end_at_nothing() -> None:
    for rate in (
        lambda step: half_cosine(step, 1000, 2e-3, 100),
        lambda step: trapezoid(step, 1000, 2e-3, 100, 0.3),
    ):
        rates = [rate(step) for step in range(1000)]
        assert rates[0] == pytest.approx(2e-5)
        assert max(rates) == pytest.approx(2e-3)
        assert rates[-1] < 2e-5


def test_a_trapezoid_given_more_steps_on_its_plateau_is_the_same_so_far() -> None:
    assert all(
        trapezoid(step, 1000, 1e-3, 100, 0.3) == trapezoid(step, 2000, 1e-3, 100, 0.3) for step in range(700)
    )


def test_a_checkpoint_comes_back_and_is_never_half_written(tmp_path: Path) -> None:
    path = tmp_path / "run" / "unet.pt"
    path.parent.mkdir()
    assert load_checkpoint(path) is None
    save_checkpoint(path, {"step": 3, "weights": torch.arange(4)})
    save_checkpoint(path, {"step": 4, "weights": torch.arange(5)})
    state = load_checkpoint(path)
    assert state is not None
    assert state["step"] == 4
    assert torch.equal(state["weights"], torch.arange(5))
    assert list(path.parent.iterdir()) == [path]


def test_a_rewound_log_ends_at_the_checkpoint_and_loses_a_line_that_was_cut_short(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        log(tmp_path, "unet", step=step, samples=64 * 12345, loss=1 / 3)
    path = tmp_path / "unet.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines) + lines[0][:20])
    rewind_log(tmp_path, "unet", 200)
    assert path.read_text() == "".join(lines[:2])
    log(tmp_path, "unet", step=300, samples=1, loss=0.25)
    assert [line["step"] for line in read_log(tmp_path, "unet")] == [100, 200, 300]
    assert read_log(tmp_path, "unet")[0]["samples"] == 790080, "counts are kept to the last digit"
    assert read_log(tmp_path, "unet")[0]["loss"] == 0.33333


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path, "look") == []
    rewind_log(tmp_path, "look", 0)
    assert read_log(tmp_path, "look") == []


def test_what_something_was_made_from_is_known_again_by_its_bits() -> None:
    weights = torch.arange(3.0)
    made_from = {"VAE": digest(weights), "tokenizer": digest("red"), "set of scenes": digest("scenes")}
    state = {"made_from": dict(made_from)}
    assert changed(state, made_from) == ""
    assert changed(state, made_from | {"VAE": digest(weights.nextafter(torch.tensor(9.0)))}) == "another VAE"
    others = made_from | {"tokenizer": digest("blue"), "set of scenes": digest("others")}
    assert changed(state, others) == "another tokenizer and another set of scenes"
