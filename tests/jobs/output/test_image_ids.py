from __future__ import annotations

import random

from jobs.output.image_ids import ImageIds


def test_it_is_the_set_of_the_ids_that_went_in() -> None:
    draw = random.Random(5)
    ids = {f"{draw.getrandbits(64):016x}" for _ in range(5_000)} | {"0" * 16, "f" * 16}
    held = ImageIds([*ids, *list(ids)[:100]])
    assert (len(held), set(held)) == (len(ids), ids)
    assert held == ids
    assert all(one in held for one in ids)
    assert not any(f"{draw.getrandbits(64):016x}" in held for _ in range(5_000))
    assert held | {"1" * 16} == ids | {"1" * 16}
