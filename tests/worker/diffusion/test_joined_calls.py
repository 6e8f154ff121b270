"""By what was learned, calls share a forward, and each gets its own part of the output back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.worker.diffusion.calls import call_of, learned, output_of
from worker.diffusion.call_rules import CallRules, SlotAxis, SlotList, learn
from worker.diffusion.contents import Digests
from worker.diffusion.joined_calls import collate, keyed, split
from worker.diffusion.sharing_errors import UnknownCall


@pytest.fixture
def _uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def key_of(call: dict[str, Any]) -> object:
    return keyed(learned(), call, Digests()).key


def test_items_that_are_lists_of_parts_meet_by_the_forms_of_their_parts() -> None:
    rules = CallRules({("x",): SlotList(1)}, {})

    def key(*parts: torch.Tensor | None) -> object:
        return keyed(rules, {"x": [list(parts)]}, Digests()).key

    assert key(torch.ones(2, 3)) == key(torch.zeros(2, 3))
    others = (key(torch.ones(2, 4)), key(torch.ones(2, 3), None), key(torch.ones(2, 3).half()), key(None))
    assert key(torch.ones(2, 3)) not in others


def test_calls_of_equal_shapes_and_shared_contents_meet_whatever_their_slots_hold() -> None:
    mine, other = call_of(1, value=1.0), call_of(1, value=9.0)
    other["timestep"] = torch.tensor(1.5)
    assert key_of(mine) == key_of(other)
    assert key_of(mine) == key_of(call_of(1, slots=1)), "an unguided image meets a guided one"


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_states": torch.ones(2, 4, 9)},
        {"hidden_states": torch.ones(2, 4, 8, dtype=torch.float16)},
        {"image_rotary_emb": (torch.ones(16, 2), torch.ones(16, 2))},
        {"return_dict": 0},
        {"mask": "causal"},
        {"added": {"time_ids": torch.ones(2, 6), "scale": 2.0}},
        {"texts": [torch.ones(7, 3), torch.ones(8, 3)]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_calls_that_differ_in_a_shape_a_constant_or_a_shared_tensor_do_not_meet(
    change: dict[str, Any],
) -> None:
    assert key_of(call_of(1)) != key_of(call_of(1) | change)


def test_complex_tables_are_compared_whole() -> None:
    one, two = call_of(1), call_of(2)
    for call in (one, two):
        call["rope"] = torch.complex(torch.ones(4), torch.zeros(4))
    rules = learn([((one, output_of(one)), (two, output_of(two)))])
    turned = one | {"rope": torch.complex(torch.ones(4), torch.ones(4))}
    assert keyed(rules, one, Digests()).key != keyed(rules, turned, Digests()).key


@pytest.mark.parametrize(
    "change",
    [
        {"control": torch.ones(2, 3)},
        {"texts": [torch.ones(7, 3)]},
        {"flat": torch.ones(7, 3)},
        {"hidden_states": [1, 2]},
    ],
    ids=["a tensor never seen", "fewer slots", "no whole slot", "no tensor"],
)
def test_a_call_unlike_those_that_were_learned_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnknownCall, match=f"{next(iter(change))}.*: leave out the `arguments` that ask"):
        key_of(call_of(1) | change)


def test_a_forward_has_all_its_slots_and_each_call_gets_its_own_part_back() -> None:
    rules = learned()
    calls = [(call_of(1, value=1.0), 2), (call_of(1, slots=1, value=5.0), 1)]
    calls[1][0]["timestep"] = torch.tensor(20.5)
    together = collate(rules, calls, 6)

    assert together["hidden_states"][:, 0, 0].tolist() == [1, 1, 5, 1, 1, 1]
    assert together["timestep"].tolist() == [500, 500, 20.5, 500, 500, 500]
    assert together["timestep"].dtype == torch.float32
    assert [text[0, 0].item() for text in together["texts"]] == [1, 1, 5, 1, 1, 1]
    assert together["flat"].shape == (30, 3)
    assert together["added"]["time_ids"].shape == (6, 6)
    assert together["image_rotary_emb"][0].shape == (16, 2)
    assert together["return_dict"] is False

    first, second = split(rules, output_of(together), [2, 1])
    assert first[0][:, 0, 0].tolist() == [2, 2]
    assert second[0][:, 0, 0].tolist() == [10]


def test_the_order_in_memory_of_a_forward_does_not_follow_from_the_calls_that_meet() -> None:
    """torch.cat takes the order that its parts agree on, and kernels for it round otherwise."""
    plain, other = (torch.rand(1, 4, 8, 8) for _ in range(2))
    last = other.to(memory_format=torch.channels_last)
    rules = CallRules({("sample",): SlotAxis(0, 1)}, {})
    for calls in ([last], [last, last], [last, plain]):
        joined = collate(rules, [({"sample": one}, 1) for one in calls], 3)["sample"]
        assert joined.is_contiguous()
        assert torch.equal(joined[: len(calls)], torch.cat(calls))


def test_a_part_of_an_output_may_be_written_into() -> None:
    rules, output = learned(), output_of(call_of(2))
    first, second = split(rules, output, [2, 2])
    first[0].zero_()
    assert (second[0] == 2).all()
    assert (output[0] == 2).all()


def test_an_output_that_was_not_learned_is_no_image_s() -> None:
    rules = CallRules({}, {(0,): SlotAxis(0, 1)})
    with pytest.raises(UnknownCall, match="1 was not put out"):
        split(rules, (torch.ones(2, 3), torch.ones(2, 3)), [1, 1])


def test_whole_numbered_timesteps_of_slots_join_those_in_float32() -> None:
    one, two = ({"sample": torch.ones(n, 3), "timestep": torch.full((n,), 7)} for n in (1, 2))
    rules = learn([((one, (one["sample"],)), (two, (two["sample"],)))])
    other = one | {"timestep": torch.tensor([1.25])}
    assert keyed(rules, one, Digests()) == keyed(rules, other, Digests())
    assert collate(rules, [(one, 1), (other, 1)], 2)["timestep"].tolist() == [7, 1.25]


@pytest.mark.usefixtures("_uncollected")
def test_nothing_of_a_call_outlives_it() -> None:
    """On a GPU its tensors are memory that the next forward wants, long before garbage is collected."""
    rules, call, digests = learned(), call_of(1), Digests()
    output = output_of(call)
    held = [weakref.ref(one) for one in (call["hidden_states"], call["texts"][0], output[0])]
    keyed(rules, call, digests)
    collate(rules, [(call, 2)], 4)
    split(rules, output, [2])
    with pytest.raises(UnknownCall):
        keyed(rules, call | {"control": torch.ones(2)}, digests)
    with pytest.raises(UnknownCall):
        split(rules, (*output, torch.ones(2)), [2])
    del call, output
    assert [one() for one in held] == [None] * 3
