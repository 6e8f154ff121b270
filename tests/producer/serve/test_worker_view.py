"""What a page shows of a worker: what it tells, and nothing that it does not."""

from __future__ import annotations

import pytest

from producer.serve.worker_view import WorkerView, worker_views

TOLD = {
    "host": "farm", "models": '["org/m"]', "claims": '[["cats-1", "3", 5]]', "slots": "2", "images": "41",
    "pipeline": '["org/m", "r", "fp16"]', "device": "NVIDIA L4", "gpu_memory_used": "12300000000",
    "gpu_memory_total": "24000000000", "gpu_utilisation": "0.831", "notice": "no space left",
    "batch_size": "16", "memory_used": "3000000000",
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
        most_shards="2",
        batch="16",
        images="41",
        memory="12.3 of 24.0 GB",
        use="83%",
        says=("no space left",),
    )


def test_a_worker_of_an_earlier_version_tells_nothing_that_is_guessed() -> None:
    shown = view(busy="1")
    assert (shown.device, shown.model, shown.takes, shown.memory, shown.use) == ("", "", "", "", "")
    assert (shown.holds, shown.says, shown.batch) == ((), (), "")


def test_a_worker_without_a_gpu_tells_what_it_holds_of_the_machines_memory() -> None:
    assert view(memory_used="1250000000").memory == "1.2 GB of the machine's"
    assert view(batch_size="0").batch == "", "nothing was rendered yet"


@pytest.mark.parametrize("odd", ["", "x", "nan", "-1", "1e9", "²", "9" * 40, "[]"])
def test_figures_that_are_none_are_not_shown(odd: str) -> None:
    figures = ("gpu_memory_used", "gpu_memory_total", "gpu_utilisation", "memory_used", "batch_size")
    shown = view(**dict.fromkeys(figures, odd))
    assert (shown.memory, shown.use, shown.batch) == ("", "", "")
