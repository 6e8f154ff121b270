from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import pytest
import torch
from diffusers import AutoencoderKL

from tools.shapes.grammar import words
from tools.shapes.networks import LATENT_CHANNELS, LATENT_SIZE, build_text_encoder, build_unet, build_vae
from tools.shapes.progress import load_checkpoint
from tools.shapes.tokenizer import build_tokenizer
from tools.shapes.train_unet import load_averaged, look, make_lessons, train_unet

CPU: Final = torch.device("cpu")


def vae_of(seed: int) -> AutoencoderKL:
    torch.manual_seed(seed)
    return build_vae().eval().requires_grad_(False)


def test_latents_are_kept_and_made_anew_for_another_vae_or_other_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "latents.pt"
    first = make_lessons(vae_of(0), tmp_path, 6, 2)
    assert first.latents.shape == (8, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    assert capsys.readouterr().out == "latents: of 8 drawings\n"
    again = make_lessons(vae_of(0), tmp_path, 6, 2)
    assert torch.equal(again.latents, first.latents)
    assert capsys.readouterr().out == f"latents: {path} is there: skipped\n"
    other = make_lessons(vae_of(1), tmp_path, 6, 2)
    assert other.scenes == first.scenes
    assert not torch.allclose(other.latents, first.latents)
    assert capsys.readouterr().out == f"latents: made again: {path} is of another VAE\n"
    as_many = make_lessons(vae_of(1), tmp_path, 7, 1)
    assert len(as_many.scenes) == len(as_many.latents) == len(other.latents)
    assert not torch.equal(as_many.latents[6], other.latents[6])
    assert torch.equal(as_many.latents[:6], other.latents[:6])
    assert capsys.readouterr().out == f"latents: made again: {path} is of another set of scenes\n"


def test_a_unet_of_another_vae_scenes_or_tokenizer_is_refused_and_left_alone(tmp_path: Path) -> None:
    vae, tokenizer = vae_of(0), build_tokenizer(words())
    lessons = make_lessons(vae, tmp_path, 6, 2)
    train_unet(vae, tokenizer, lessons, tmp_path, steps=1, device=CPU, batch=2)
    path = tmp_path / "unet.pt"
    before = path.read_bytes()
    remedy = "bring that back, or remove the file to start again"
    others = make_lessons(vae_of(1), tmp_path, 6, 2)
    with pytest.raises(SystemExit) as refusal:
        train_unet(vae, tokenizer, others, tmp_path, steps=2, device=CPU, batch=2)
    assert str(refusal.value) == f"{path}: was trained with another VAE: {remedy}"
    swapped = build_tokenizer([word[::-1] for word in words()])
    more = make_lessons(vae, tmp_path, 7, 2)
    with pytest.raises(SystemExit) as refusal:
        train_unet(vae, swapped, more, tmp_path, steps=1, device=CPU, batch=2)
    assert str(refusal.value) == (
        f"{path}: was trained with another set of scenes and another tokenizer: {remedy}"
    )
    assert path.read_bytes() == before
    same = dataclasses.replace(lessons)
    train_unet(vae, tokenizer, same, tmp_path, steps=2, device=CPU, batch=2)
    state = load_checkpoint(path)
    assert state is not None
    assert state["step"] == 2


def test_what_is_exported_are_the_averaged_weights(tmp_path: Path) -> None:
    vae, tokenizer = vae_of(0), build_tokenizer(words())
    train_unet(vae, tokenizer, make_lessons(vae, tmp_path, 6, 2), tmp_path, steps=2, device=CPU, batch=2)
    unet, text_encoder = load_averaged(tokenizer, tmp_path, CPU)
    state = load_checkpoint(tmp_path / "unet.pt")
    assert state is not None
    for part, average, last in ((unet, "ema", "unet"), (text_encoder, "ema_text", "text")):
        weights = part.state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in state[average].items())
        assert not all(torch.equal(weights[name], tensor) for name, tensor in state[last].items())


def test_a_look_gives_the_shares_of_each_kind() -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(words())
    averaged = build_unet().eval(), build_text_encoder(tokenizer).eval()
    shares = look(vae_of(0), tokenizer, averaged, count=1)
    kinds = ["one_all", "places_all", "relation_all", "count_all"]
    assert list(shares) == ["background", "colour", "place", "shape", *kinds]
    assert shares["one_all"] == 0.0, "untrained weights paint nothing that can be read"
