from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tools.shapes.export import export
from tools.shapes.grammar import words
from tools.shapes.networks import build_text_encoder, build_unet, build_vae
from tools.shapes.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(words())
    unet = build_unet()
    folder = tmp_path_factory.mktemp("export") / "model"
    export(build_vae(), tokenizer, unet, build_text_encoder(tokenizer), folder)
    assert unet.dtype == torch.float32, "the caller's model stays as it is"
    return folder


def test_an_export_is_a_pipeline_of_half_precision_under_12_megabytes(folder: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, dtype=torch.float16)
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float16}
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.scheduler.config.clip_sample is False
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 12_000_000


def test_an_exported_pipeline_paints_64_pixels_from_a_short_prompt(folder: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a red circle", num_inference_steps=2, guidance_scale=3.0).images[0]
    assert picture.size == (64, 64)


def test_its_vocabulary_is_there_in_the_older_form_too(folder: Path) -> None:
    from transformers import CLIPTokenizer

    prompt = "two red circles on a white background"
    old = CLIPTokenizer(
        vocab=str(folder / "tokenizer" / "vocab.json"), merges=str(folder / "tokenizer" / "merges.txt")
    )
    new = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert old(prompt).input_ids == new(prompt).input_ids
    assert len(new(prompt).input_ids) == 9


def test_a_folder_that_has_the_weights_is_left_alone_and_one_with_others_or_half_done_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(words())
    vae, unet, text_encoder = build_vae(), build_unet(), build_text_encoder(tokenizer)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"

    def exported() -> str:
        export(vae, tokenizer, unet, text_encoder, tmp_path)
        return capsys.readouterr().out

    assert exported() == f"export: {tmp_path}\n"
    first = weights.read_bytes()
    assert exported() == f"export: {tmp_path} is there: skipped\n"
    with torch.no_grad():
        unet.conv_out.bias += 1
    assert exported() == f"export: {tmp_path}\n"
    assert weights.read_bytes() != first
    (tmp_path / "made_from.json").unlink()
    weights.unlink()
    assert exported() == f"export: {tmp_path}\n"
    assert weights.exists()
