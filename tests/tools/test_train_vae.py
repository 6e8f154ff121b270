from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import pytest
import torch

from tools.shapes.draw import draw_crowd
from tools.shapes.networks import SCALING_FACTOR, build_vae, to_tensor
from tools.shapes.progress import save_checkpoint
from tools.shapes.train_vae import gated_vae, normalise, train_vae

CPU: Final = torch.device("cpu")


@torch.no_grad()
def test_normalised_latents_have_mean_0_and_variance_1_and_decode_as_before() -> None:
    torch.manual_seed(0)
    vae = build_vae().eval()
    rng = random.Random(0)
    pictures = to_tensor([draw_crowd(rng) for _ in range(8)])
    before = vae.encode(pictures).latent_dist
    decoded = vae.decode(before.mean).sample
    normalise(vae, before.mean)
    after = vae.encode(pictures).latent_dist
    scaled = after.mean * SCALING_FACTOR
    assert scaled.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert scaled.std(dim=(0, 2, 3)) == pytest.approx([1.0] * 8, abs=1e-4)
    assert torch.allclose(vae.decode(after.mean).sample, decoded, atol=1e-4)
    spread = after.std / after.mean.std(dim=(0, 2, 3))[:, None, None]
    assert torch.allclose(spread, before.std / before.mean.std(dim=(0, 2, 3))[:, None, None], rtol=1e-4)


def test_a_vae_that_a_unet_was_trained_with_is_not_trained_on(tmp_path: Path) -> None:
    train_vae(tmp_path, 1, CPU, batch=1)
    before = (tmp_path / "vae.pt").read_bytes()
    unet = tmp_path / "unet.pt"
    unet.write_bytes(b"hours of work")
    with pytest.raises(SystemExit) as refusal:
        train_vae(tmp_path, 2, CPU, batch=1)
    assert str(refusal.value) == (f"{unet}: needs the VAE of step 1: remove it first, or give --vae-steps 1")
    assert (tmp_path / "vae.pt").read_bytes() == before
    train_vae(tmp_path, 1, CPU, batch=1)


def test_a_vae_that_fails_the_gate_is_refused_and_its_reading_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "vae.pt", {"vae": build_vae().state_dict()})
    with pytest.raises(SystemExit, match=r"vae.pt: the checker must read 98%: train the VAE longer"):
        gated_vae(tmp_path, CPU, count=8)
    assert capsys.readouterr().out == "gate: the checker reads 0.0% of 8 reconstructions\n"
    with pytest.raises(SystemExit, match="must read 98%"):
        gated_vae(tmp_path, CPU, count=8)
    kept = tmp_path / "gate.pt"
    skipped = f"gate: {kept} is there: skipped; the checker reads 0.0% of 8 reconstructions\n"
    assert capsys.readouterr().out == skipped
    vae = gated_vae(tmp_path, CPU, count=8, allow_bad=True)
    assert capsys.readouterr().out == skipped
    assert vae.training is False


def test_a_gate_is_passed_anew_by_another_vae_and_with_another_number_of_drawings(tmp_path: Path) -> None:
    def passed(seed: int, count: int) -> bytes:
        torch.manual_seed(seed)
        save_checkpoint(tmp_path / "vae.pt", {"vae": build_vae().state_dict()})
        gated_vae(tmp_path, CPU, count, allow_bad=True)
        return (tmp_path / "gate.pt").read_bytes()

    first = passed(seed=0, count=4)
    assert passed(seed=0, count=4) == first
    assert passed(seed=0, count=6) != first
    assert passed(seed=1, count=4) != first
    assert passed(seed=0, count=4) == first, "the same VAE always leaves the gate the same"
