from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tools.shapes.progress import half_cosine, load_checkpoint, save_checkpoint, trapezoid


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
