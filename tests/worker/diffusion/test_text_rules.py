"""Texts of different lengths share a forward, whose lengths follow from none of its images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_glm_image import GlmImageKVCache
from torch.overrides import TorchFunctionMode

from worker.diffusion.text_rules import (
    ListPaddedToLongest,
    Padded,
    TextRule,
    TrimmedToLongest,
    WithoutIdleCache,
    text_rule_of,
)


def test_padded_texts_are_as_long_as_the_next_multiple_of_64_and_always_masked() -> None:
    rule = Padded("embeds", "mask")
    short = rule.prepare({"embeds": torch.ones(1, 5, 3), "mask": None, "other": 1})
    long = rule.prepare({"embeds": torch.ones(1, 64, 3), "mask": torch.ones(1, 64, dtype=torch.bool)})
    assert short["embeds"].shape == long["embeds"].shape == (1, 64, 3)
    assert short["mask"].sum() == 5
    assert short["mask"].dtype == long["mask"].dtype == torch.bool
    assert long["mask"].all()
    assert short["other"] == 1
    assert rule.prepare({"embeds": torch.ones(1, 65, 3)})["embeds"].shape == (1, 128, 3)


def test_texts_whose_lengths_are_given_are_padded_without_a_mask() -> None:
    call = {"texts": torch.ones(2, 5, 3), "lengths": torch.tensor([5, 2])}
    padded = Padded("texts", mask=None).prepare(call)
    assert padded["texts"].shape == (2, 64, 3)
    assert not padded["texts"][:, 5:].any()
    assert padded.keys() == call.keys()


def test_a_spare_slot_is_longer_than_any_text_that_is_trimmed() -> None:
    rule = TrimmedToLongest("embeds", "mask")
    calls = [
        rule.prepare({"embeds": torch.ones(1, 8, 3), "mask": torch.ones(1, 8)}),
        rule.prepare({"embeds": torch.ones(1, 8, 3), "mask": torch.tensor([[1.0] * 3 + [0.0] * 5])}),
    ]
    together = {name: torch.cat([call[name] for call in (*calls, calls[1])]) for name in ("embeds", "mask")}
    filled = rule.fill_spare(together)
    assert filled["mask"].sum(1).tolist() == [8, 3, 9]
    assert together["mask"].sum(1).tolist() == [8, 3, 3], "the images' own masks are not written into"


@pytest.mark.parametrize(("length", "spare"), [(1, 96), (63, 96), (64, 96), (65, 160)])
def test_a_spare_text_is_longer_than_any_that_the_list_is_padded_to(length: int, spare: int) -> None:
    rule = ListPaddedToLongest("texts", own_multiple=32)
    call: dict[str, Any] = rule.prepare({"texts": [torch.ones(length, 3), torch.ones(1, 3)]})
    call["texts"] = [*call["texts"], torch.ones(1, 3)]
    filled = rule.fill_spare(call)
    assert [len(text) for text in filled["texts"]] == [length, 1, spare]
    assert filled.keys() == {"texts"}, "the denoiser gets its own arguments alone"
    padded = length + -length % 32
    assert spare > padded


class Made(TorchFunctionMode):
    """Counts the calls of torch's functions that make a text longer."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.__name__ in ("pad", "new_zeros")
        return func(*args, **({} if kwargs is None else kwargs))


@pytest.mark.parametrize(
    ("rule", "call", "made"),
    [
        (Padded("embeds", "mask"), {"embeds": torch.ones(1, 5, 3), "mask": torch.ones(1, 5)}, 2),
        (TrimmedToLongest("embeds", "mask"), {"embeds": torch.ones(1, 5, 3), "mask": torch.ones(1, 5)}, 2),
        (ListPaddedToLongest("texts", 32), {"texts": [torch.ones(5, 3), torch.ones(3, 3)]}, 1),
    ],
)
def test_a_text_that_is_passed_in_every_step_is_made_longer_once(
    rule: TextRule, call: dict[str, Any], made: int
) -> None:
    with Made() as counted:
        for _step in range(20):
            filled = rule.fill_spare(rule.prepare(call))
    assert counted.count == made
    assert filled.keys() == call.keys()


def test_the_spare_text_is_as_long_as_the_call_wants_it_though_its_first_text_is_the_same() -> None:
    """Guidance may end before the last step: then the longer text is no longer in the call."""
    rule = ListPaddedToLongest("texts", own_multiple=32)
    text = torch.ones(5, 3)
    lengths = []
    for texts in ([text, torch.ones(70, 3), text], [text, text], [text, torch.ones(70, 3), text]):
        lengths.append(len(rule.fill_spare(rule.prepare({"texts": texts}))["texts"][-1]))
    assert lengths == [160, 96, 160]


def test_a_text_that_is_a_list_of_one_part_gets_a_spare_of_the_same_kind() -> None:
    rule = ListPaddedToLongest("texts", own_multiple=32)
    call: dict[str, Any] = rule.prepare({"texts": [[torch.ones(40, 3)], [torch.ones(1, 3)]]})
    filled = rule.fill_spare(call)
    assert [[len(part) for part in text] for text in filled["texts"]] == [[40], [96]]
    several = {"texts": [[torch.ones(4, 3), torch.ones(2, 3)]]}
    assert rule.fill_spare(rule.prepare(several)) == several, "texts around pictures stay as they are"


def test_a_cache_is_left_out_unless_something_is_written_into_it_or_read_from_it() -> None:
    rule = WithoutIdleCache("caches")
    cache = GlmImageKVCache(num_layers=2)
    assert rule.prepare({"caches": cache, "other": 1}) == {"caches": None, "other": 1}
    for mode, held in (("skip", None), ("write", cache), ("read", cache)):
        cache.set_mode(mode)
        assert rule.prepare({"caches": cache})["caches"] is held
    assert rule.prepare({"caches": None}) == {"caches": None}


def test_most_denoisers_take_their_texts_as_they_are() -> None:
    call = {"texts": [1]}
    rule = text_rule_of(torch.nn.Linear(1, 1))
    assert (rule.prepare(call), rule.fill_spare(call), rule.spare_slots) == (call, call, 0)
