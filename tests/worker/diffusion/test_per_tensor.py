from __future__ import annotations

import weakref

import torch

from worker.diffusion.per_tensor import PerTensor


def test_a_value_is_computed_once_for_a_tensor_until_it_is_written_to() -> None:
    computed: list[float] = []

    def total(tensor: torch.Tensor) -> float:
        computed.append(float(tensor.sum()))
        return computed[-1]

    totals: PerTensor[float] = PerTensor()
    ones, twos = torch.ones(3), torch.full((3,), 2.0)
    assert [totals.of(each, total) for each in (ones, twos, ones)] == [3.0, 6.0, 3.0]
    assert computed == [3.0, 6.0]
    ones[0] = 5
    assert totals.of(ones, total) == 7.0


def test_a_value_goes_with_its_tensor() -> None:
    kept: PerTensor[torch.Tensor] = PerTensor()
    tensor = torch.ones(2)
    value = weakref.ref(kept.of(tensor, lambda each: each + 1))
    assert value() is not None
    del tensor
    assert value() is None


def test_tensors_of_inference_mode_have_values_too() -> None:
    with torch.inference_mode():
        tensor = torch.ones(2)
    assert PerTensor[float]().of(tensor, lambda each: float(each.sum())) == 2.0
