"""What no encoder gets of a text is told, whatever the pipeline is; what one of them gets is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from jobs.arguments import arguments_text
from jobs.request import ImageRequest
from tests.tiny.families import FAMILIES
from worker.diffusion.painter import Painter
from worker.diffusion.watched_tokenizers import TextCuts

FOX = ImageRequest(
    prompt="a fox", height=64, width=64, num_inference_steps=1, guidance_scale=4.0, scheduler="default",
    seed=1, model="tiny", revision="1",
)  # fmt: skip
LONG = "a red house, " * 40 + "and a blue lighthouse"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cut(painter: Painter, **settings: object) -> str | None:
    with torch.no_grad():
        return painter.paint(replace(FOX, **settings)).prompt_cut  # type: ignore[arg-type]


def test_sdxl_tells_what_both_its_encoders_have_no_room_for() -> None:
    painter = Painter(FAMILIES["StableDiffusionXLPipeline"].build())
    assert cut(painter) is None
    told = cut(painter, prompt=LONG)
    assert told is not None and told.endswith("lighthouse") and len(told) < len(LONG)
    assert cut(painter, negative_prompt=LONG) == f"negative prompt: {told}"
    assert cut(painter, prompt=LONG, negative_prompt=f"ugly, {LONG}").startswith(f"{told}\nnegative prompt: ")  # type: ignore[union-attr]


def test_flux_tells_nothing_of_what_its_second_encoder_reads() -> None:
    painter = Painter(FAMILIES["FluxPipeline"].build())
    assert cut(painter, prompt=LONG) is None
    told = cut(painter, prompt=LONG, arguments='{"max_sequence_length":64}')
    assert told is not None and told.endswith("lighthouse")


@pytest.mark.parametrize("family", ["PixArtSigmaPipeline", "SanaPipeline", "StableDiffusion3Pipeline"])
def test_other_pipelines_tell_it_too(family: str) -> None:
    tiny = FAMILIES[family]
    painter = Painter(tiny.build())
    sizes = {"height": tiny.height, "width": tiny.width, "arguments": arguments_text(dict(tiny.arguments))}
    assert cut(painter, **sizes) is None
    told = cut(painter, prompt="a red house, " * 400 + "and a blue lighthouse", **sizes)
    assert told is not None and told.endswith("lighthouse")


def test_a_chat_s_template_is_part_of_what_is_tokenised() -> None:
    tokenizer = FAMILIES["QwenImagePipeline"].build().tokenizer
    tokenizer.chat_template = "{% for m in messages %}user: {{ m.content }} :end{% endfor %}"
    cuts = TextCuts()
    watched = cuts.watched("tokenizer", tokenizer)
    assert watched is not None and isinstance(watched, type(tokenizer)) and len(watched) == len(tokenizer)
    chat = [{"role": "user", "content": LONG}]
    watched.apply_chat_template(chat, tokenize=True, truncation=True, max_length=30, return_dict=True)
    told = cuts.told(replace(FOX, prompt=LONG))
    assert told is not None and told.endswith("and a blue lighthouse")
    watched.padding_side = "left"
    assert tokenizer.padding_side == "left"
    assert cuts.watched("vae", torch.nn.Linear(1, 1)) is None
