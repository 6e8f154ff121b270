from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from worker.renderers.shapes_random import build

SUMS = [91405.08481717385, 16323.77389273958, 12726.279945198887]
"""Of absolute weights: UNet, VAE, text encoder. If they change, so must the revision."""


def weights(pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    parts = {"unet": pipe.unet, "vae": pipe.vae, "text_encoder": pipe.text_encoder}
    return {f"{part}.{name}": t for part, module in parts.items() for name, t in module.state_dict().items()}


def test_two_builds_are_equal_and_leave_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    first = build()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(12345)
    second = weights(build())
    assert all(torch.equal(value, second[name]) for name, value in weights(first).items())
    torch.set_rng_state(state)


def test_a_saved_pipeline_loads_as_the_same_pipeline_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        pipe = build()
        pipe.save_pretrained(tmp_path / "model")
        loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "model", use_safetensors=True)
    assert not [record for record in caplog.records if "safety" in record.getMessage().casefold()]
    there = weights(loaded)
    assert all(torch.equal(value, there[name]) for name, value in weights(pipe).items())
    prompt = "A red circle, two stars & 東京 Ünïcode!"
    assert loaded.tokenizer(prompt).input_ids == pipe.tokenizer(prompt).input_ids
    assert loaded.tokenizer.model_max_length == 77
    assert loaded.scheduler.config.steps_offset == 1
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"
    }  # fmt: skip


def test_its_tokenizer_knows_words_and_loses_no_other() -> None:
    tokenizer = build().tokenizer
    assert [tokenizer.decode(token) for token in tokenizer("a red circle").input_ids[1:-1]] == [
        "a", "red", "circle"
    ]  # fmt: skip
    for text in ("zygote", "東京", "don't", "ünïcode"):
        tokens = tokenizer(text).input_ids[1:-1]
        assert tokenizer.unk_token_id not in tokens
        assert tokenizer.decode(tokens).replace(" ", "") == text


def test_pictures_are_64_pixels_of_16_latents_and_not_flat() -> None:
    pipe = build()
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    latents = pipe("a cat", num_inference_steps=2, generator=generator, output_type="latent").images
    assert latents.shape == (1, 4, 16, 16)
    picture = pipe("a cat", num_inference_steps=2, generator=generator, output_type="np").images
    assert picture.shape == (1, 64, 64, 3)
    assert picture.std() > 0.05


def test_its_weights_and_vocabulary_are_those_of_revision_1() -> None:
    pipe = build()
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    sums = [sum(float(p.detach().double().abs().sum()) for p in part.parameters()) for part in parts]
    assert sums == pytest.approx(SUMS, rel=1e-5)
    assert len(pipe.tokenizer) == 737
