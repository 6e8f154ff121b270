"""What belongs to a slot is learned from calls for one image and for two."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.worker.diffusion.calls import call_of, learned, output_of
from worker.diffusion.call_rules import OneTimestep, Shared, SlotAxis, SlotList, from_json, learn, to_json
from worker.diffusion.sharing_errors import Unlearnable


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


def test_rules_are_stored_as_json_and_read_again() -> None:
    assert from_json(to_json(learned())) == learned()
