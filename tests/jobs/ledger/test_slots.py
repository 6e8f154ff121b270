from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from jobs.errors import LeaseLost, OtherHardware
from jobs.ledger import redis_keys
from jobs.ledger.ledger import Ledger
from tests.jobs.ledger.claims import SIZE, Submit, indices, must_claim


def test_a_speed_is_that_of_the_latest_ten_minutes_of_rendering_and_is_forgotten_in_a_month(
    ledger: Ledger, client: redis.Redis
) -> None:
    other = replace(SIZE, height=8)
    assert ledger.rates() == {}
    ledger.add_work(SIZE, 600, 2.0)
    ledger.add_work(SIZE, 100, 8.0)
    ledger.add_work(other, 10, 1.0)
    assert ledger.rates() == {SIZE: 70.0, other: 10.0}
    for _ in range(20):
        ledger.add_work(SIZE, 6000, 600.0)
    assert ledger.rates()[SIZE] == pytest.approx(10.0, rel=1e-4)
    client.expire(redis_keys.RATES, 5)
    ledger.add_work(other, 10, 1.0)
    assert 29 * 86400 < client.ttl(redis_keys.RATES) <= 30 * 86400


def test_the_first_slots_of_a_job_hold_and_what_was_measured_is_known_to_the_next(
    ledger: Ledger, submit_job: Submit
) -> None:
    for name in "abc":
        submit_job(1, output=f"/{name}", name=name)
    first, second, third = (must_claim(ledger) for _ in range(3))
    assert ledger.settle_slots(first, SIZE) == 0
    assert ledger.settle_slots(first, SIZE, slots=8) == 8
    assert ledger.settle_slots(first, SIZE, slots=32) == 8
    assert ledger.settle_slots(second, SIZE) == 8
    for other in ({"precision": "fp32"}, {"revision": "2"}, {"height": 64}, {"width": 64}):
        assert ledger.settle_slots(third, replace(SIZE, **other)) == 0  # type: ignore[arg-type]


def test_slots_that_were_asked_for_are_not_known_to_the_next_job(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(1, output="/a", name="a")
    submit_job(1, output="/b", name="b")
    first, second = must_claim(ledger), must_claim(ledger, "w2")
    assert ledger.settle_slots(first, SIZE, slots=6, measured=False) == 6
    assert ledger.settle_slots(first, SIZE) == 6
    assert ledger.settle_slots(second, SIZE) == 0


def test_the_lowest_cap_lowers_the_slots_of_its_job_alone(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(1, output="/a", name="a")
    submit_job(1, output="/b", name="b")
    first, second = must_claim(ledger), must_claim(ledger, "w2")
    ledger.settle_slots(first, SIZE, slots=32)
    for cap, slots in ((16, 16), (4, 4), (8, 4)):
        ledger.cap_slots(first, SIZE, cap)
        assert ledger.settle_slots(first, SIZE) == slots
    assert ledger.settle_slots(second, SIZE) == 32


@pytest.mark.parametrize("changes", [{"device": "other card"}, {"precision": "fp32"}])
def test_another_kind_of_device_is_refused_unless_it_may_be_mixed_in(
    ledger: Ledger, submit_job: Submit, changes: dict[str, str]
) -> None:
    job_id = submit_job(1)
    found, other = must_claim(ledger), replace(SIZE, **changes)  # type: ignore[arg-type]
    ledger.settle_slots(found, SIZE, slots=8)
    for slots in (0, 4):
        with pytest.raises(OtherHardware) as caught:
            ledger.settle_slots(found, other, slots=slots)
        assert str(caught.value).startswith(f"{job_id} began on card in bf16, this worker is {other.kind}:")
        assert "--mixed-hardware" in str(caught.value)
    assert ledger.settle_slots(found, other, slots=4, mixed=True) == 4
    for size in (SIZE, other):
        assert ledger.settle_slots(found, replace(size, width=64), slots=2) == 2


def test_slots_of_a_job_that_was_wiped_or_finished_are_a_lost_lease(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    late = must_claim(ledger)
    ledger.complete(late, indices(late), {})
    ledger.finish(must_claim(ledger))
    for call in (lambda: ledger.settle_slots(late, SIZE, slots=8), lambda: ledger.cap_slots(late, SIZE, 8)):
        with pytest.raises(LeaseLost):
            call()
    assert not client.exists(redis_keys.job(job_id, "rows"), redis_keys.SLOTS)
    submit_job(1)
    wiped = must_claim(ledger)
    client.flushall()
    with pytest.raises(LeaseLost):
        ledger.settle_slots(wiped, SIZE, slots=8)
    assert client.keys("*") == []
