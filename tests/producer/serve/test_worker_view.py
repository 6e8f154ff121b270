"""What a page shows of a worker: what it tells, and nothing that it does not."""

from __future__ import annotations

import pytest

from producer.serve.worker_view import WorkerView, worker_views

TOLD = {
    "host": "farm", "models": '["org/m"]', "claims": '[["cats-1", "3", 5]]', "slots": "2", "images": "41",
    "pipeline": '["org/m", "r", "fp16"]', "device": "NVIDIA L4", "gpu_memory_used": "12300000000",
    "gpu_memory_total": "24000000000", "gpu_utilisation": "0.831", "notice": "no space left",
}  # fmt: skip


def view(**facts: str) -> WorkerView:
    [one] = worker_views({"gpu0@farm": facts})
    return one


def test_a_worker_is_shown_with_all_that_it_tells() -> None:
    assert view(**TOLD) == WorkerView(
        name="gpu0@farm",
        host="farm",
        device="NVIDIA L4",
        model="org/m",
        takes="org/m",
        holds=(("cats-1", "3"),),
        slots="2",
        images="41",
        memory="12.3 of 24.0 GB",
        use="83%",
        says=("no space left",),
    )


def test_a_worker_of_an_earlier_version_tells_nothing_that_is_guessed() -> None:
    shown = view(busy="1")
    assert (shown.device, shown.model, shown.takes, shown.memory, shown.use) == ("", "", "", "", "")
    assert (shown.holds, shown.says) == ((), ())


@pytest.mark.parametrize("odd", ["", "x", "nan", "-1", "1e9", "²", "9" * 40, "[]"])
def test_figures_that_are_none_are_not_shown(odd: str) -> None:
    shown = view(gpu_memory_used=odd, gpu_memory_total=odd, gpu_utilisation=odd)
    assert (shown.memory, shown.use) == ("", "")
