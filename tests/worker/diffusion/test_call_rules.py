"""What belongs to a slot is learned from calls for one image and for two; by it calls share a forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from worker.diffusion.call_rules import (
    CallRules,
    Digests,
    OneTimestep,
    Shared,
    SlotAxis,
    SlotList,
    UnknownCall,
    Unlearnable,
    collate,
    from_json,
    keyed,
    learn,
    split,
    to_json,
)


def call_of(images: int, *, slots: int = 2, length: int = 7, value: float = 1.0) -> dict[str, Any]:
    """A call like those of diffusers' pipelines: every kind of argument there is."""
    count = images * slots
    return {
        "hidden_states": torch.full((count, 4, 8), value),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.full((count, length, 3), value),
        "added": {"time_ids": torch.full((count, 6), value), "scale": 1.0},
        "image_rotary_emb": (torch.ones(16, 2), torch.zeros(16, 2)),
        "texts": [torch.full((length, 3), value) for _ in range(count)],
        "flat": torch.full((count * 5, 3), value),
        "return_dict": False,
        "mask": None,
    }


def output_of(call: dict[str, Any]) -> tuple[torch.Tensor]:
    return (call["hidden_states"] * 2,)


def learned(**options: Any) -> CallRules:
    one, two = call_of(1, **options), call_of(2, **options)
    return learn([((one, output_of(one)), (two, output_of(two)))])


def test_what_doubled_belongs_to_the_slots_and_what_did_not_is_shared() -> None:
    assert learned().inputs == {
        ("hidden_states",): SlotAxis(0, 1),
        ("timestep",): OneTimestep(),
        ("encoder_hidden_states",): SlotAxis(0, 1),
        ("added", "time_ids"): SlotAxis(0, 1),
        # Two tensors, and two slots: only the second image shows that they are shared.
        ("image_rotary_emb", 0): Shared(),
        ("image_rotary_emb", 1): Shared(),
        ("texts",): SlotList(1),
        ("flat",): SlotAxis(0, 5),
    }
    assert learned().outputs == {(0,): SlotAxis(0, 1)}


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_rules_are_the_same_for_one_slot_an_image_or_more(slots: int) -> None:
    assert learned(slots=slots) == learned()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param(torch.ones(2, 3), torch.ones(3, 3), id="it grows by another factor"),
        pytest.param(torch.ones(2, 3), torch.ones(4, 6), id="two axes grow"),
        pytest.param(torch.ones(2, 3), torch.ones(4, 3, 1), id="an axis is added"),
        pytest.param([1, 2], [1, 2, 3], id="a list grows by another factor"),
        pytest.param(None, torch.ones(2), id="it is given for two images alone"),
        pytest.param(torch.ones(3, 3), torch.ones(6, 3), id="its entries are no multiple of the slots"),
    ],
)
def test_what_cannot_be_said_is_not_learned(one: Any, two: Any) -> None:
    first, second = call_of(1) | {"odd": one}, call_of(2) | {"odd": two}
    with pytest.raises(Unlearnable, match="odd"):
        learn([((first, output_of(first)), (second, output_of(second)))])


def test_calls_in_which_nothing_grows_are_not_learned() -> None:
    with pytest.raises(Unlearnable, match="no argument"):
        learn([((call_of(1), ()), (call_of(1), ()))])


def test_two_calls_that_disagree_about_an_argument_are_not_learned() -> None:
    one, two = call_of(1), call_of(2)
    other_one, other_two = one | {"flat": torch.ones(3, 3)}, two | {"flat": torch.ones(3, 3)}
    with pytest.raises(Unlearnable, match="flat"):
        learn([((one, ()), (two, ())), ((other_one, ()), (other_two, ()))])


def key_of(call: dict[str, Any]) -> object:
    return keyed(learned(), call, Digests()).key


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


def test_a_shared_tensor_that_was_written_into_is_compared_again() -> None:
    digests, table = Digests(), torch.zeros(3)
    before = digests.of(table)
    table += 1
    assert digests.of(table) != before


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
    with pytest.raises(UnknownCall, match=next(iter(change))):
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


def test_rules_are_stored_as_json_and_read_again() -> None:
    assert from_json(to_json(learned())) == learned()
