"""Values are recognised by what they hold; what cannot be looked into is recognised as nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from worker.diffusion.contents import Digests, constant, content_of


def cache_of(value: float) -> DynamicCache:
    cache = DynamicCache()
    cache.update(torch.full((1, 1, 2, 1), value), torch.ones(1, 1, 2, 1), 0)
    return cache


def test_a_shared_tensor_that_was_written_into_is_compared_again() -> None:
    digests, table = Digests(), torch.zeros(3)
    before = digests.of(table)
    table += 1
    assert digests.of(table) != before


def test_equal_values_have_equal_contents() -> None:
    def value(number: float, fill: float = 1.0) -> dict[str, Any]:
        return {"ids": [torch.full((2,), fill), None], "scale": number, "dtype": torch.float32}

    digests = Digests()
    assert content_of(value(1.0), digests) == content_of(value(1.0), digests)
    others = [value(2.0), value(1), value(1.0, 2.0), {"ids": value(1.0)["ids"]}]
    assert len({content_of(one, digests) for one in [value(1.0), *others]}) == 5


def test_a_cache_of_keys_and_values_is_equal_to_itself_alone() -> None:
    one, other = cache_of(1), cache_of(2)
    assert repr(one) == repr(other), "so it says nothing of what it holds"
    assert constant(one) == constant(one)
    assert constant(one) != constant(other)
    assert content_of({"past": one}, Digests()) is None


@pytest.mark.parametrize("value", [1, 1.0, True, None, "1", torch.float32, slice(1, 2)])
def test_constants_are_equal_where_their_values_are(value: object) -> None:
    constants = [constant(one) for one in (1, 1.0, True, None, "1", torch.float32, slice(1, 2))]
    assert constants.count(constant(value)) == 1
