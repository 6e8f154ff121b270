from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from jobs.errors import LeaseLost
from jobs.ledger import redis_keys
from jobs.ledger.job import Claim
from jobs.ledger.ledger import Ledger
from tests.jobs.ledger.claims import Submit, failure, must_claim, send_back


def test_images_in_the_slots_at_three_deaths_without_a_new_picture_are_suspected(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    submit_job(1)
    for slots in ([0, 1], [1, 2], []):
        assert dies(slots).suspects == frozenset()
    found = must_claim(ledger)
    assert (found.suspects, found.all_suspect, found.condemned) == ({0, 1, 2}, False, frozenset())


def test_a_new_picture_clears_the_suspicion(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    submit_job(1)
    dies([0, 1])
    dies([0, 1])
    found = must_claim(ledger)
    assert ledger.record(found, [3], {}) == 1
    ledger.release(found)
    dies([0, 1])
    dies([0, 1])
    assert must_claim(ledger).suspects == frozenset()


def test_a_picture_that_is_recorded_again_does_not_clear_the_suspicion(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    submit_job(1)
    found = must_claim(ledger)
    ledger.record(found, [3], failure(2))
    ledger.release(found)
    for _ in range(3):
        found = must_claim(ledger)
        assert ledger.record(found, [3], failure(2)) == 0
        ledger.release(found)
        dies([0, 1])
    assert must_claim(ledger).suspects == {0, 1}


def test_a_failure_clears_the_suspicion_as_a_new_picture_does(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    job_id = submit_job(1)
    for image in range(4):
        for _ in range(3):
            assert dies([image]).suspects == frozenset()
        for _ in range(2):
            assert dies([image], alone=image).suspects == {image}
        found = must_claim(ledger)
        assert found.condemned == {*range(image + 1)}
        ledger.record(found, [], failure(image))
        ledger.release(found)
    found = must_claim(ledger)
    ledger.complete(found, [], {index: failure(index)[index] for index in range(4)})
    status = ledger.status(job_id)
    assert (status.outcome, status.failed, status.ending) == ("failures", 4, "")


LATER = 1400
"""ms by which leases that one death ends run out apart: 1,500 at most, of which a busy machine takes some."""


def milliseconds(client: redis.Redis) -> int:
    """The time of Redis."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


@pytest.mark.parametrize("alone", [None, 0])
@pytest.mark.parametrize("later", [-LATER, 0, LATER])
def test_a_shard_with_nothing_in_the_slots_is_not_blamed_for_its_neighbours_deaths(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, alone: int | None, later: int
) -> None:
    """`later`: ms by which the lease of who is to blame runs out after the innocent one's."""
    job_id = submit_job(2)
    for _ in range(3):
        guilty, innocent = must_claim(ledger), must_claim(ledger)
        ledger.renew({guilty: [0], innocent: []}, 30)
        if alone is not None:
            ledger.begin_alone(guilty, alone)
        places = [f"{job_id}/{one.shard}" for one in (innocent, guilty)]
        now = milliseconds(client)
        for first, last in (places,) if later >= 0 else (places[::-1],):
            client.zadd(redis_keys.LEASES, {first: 1, last: now + abs(later)})
        assert ledger.reap() == (1 if later else 2)
        client.zadd(redis_keys.LEASES, dict.fromkeys(places, 1), xx=True)
        assert ledger.reap() == (1 if later else 0)
        assert not client.hexists(redis_keys.job(job_id, "expiries"), innocent.shard)
        client.delete(redis_keys.job(job_id, "deaths"), redis_keys.job(job_id, "expiries"))


def test_a_renewal_ends_the_excuse_of_a_shard(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    guilty, innocent = must_claim(ledger), must_claim(ledger)
    ledger.renew({guilty: [0], innocent: []}, 30)
    places = [f"{job_id}/{one.shard}" for one in (guilty, innocent)]
    client.zadd(redis_keys.LEASES, {places[0]: 1, places[1]: milliseconds(client) + LATER})
    assert ledger.reap() == 1
    assert ledger.renew({innocent: []}, 30) == ["held"]
    client.zadd(redis_keys.LEASES, {places[1]: 1})
    assert ledger.reap() == 1
    assert client.hexists(redis_keys.job(job_id, "expiries"), innocent.shard)


def test_a_renewal_keeps_which_image_is_alone(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.begin_alone(found, 2)
    assert ledger.renew({found: [2]}, 30) == ["held"]
    client.zadd(redis_keys.LEASES, {f"{job_id}/0": 1})
    ledger.reap()
    assert must_claim(ledger).suspects == {2}


def test_ten_unexplained_deaths_make_the_whole_shard_suspect_and_twenty_stop_the_job(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    job_id = submit_job(2)
    for _ in range(10):
        assert not dies().all_suspect
    assert dies().all_suspect
    for _ in range(8):
        dies()
    assert ledger.status(job_id).ending == ""
    dies()
    status = ledger.status(job_id)
    assert (status.state, status.outcome) == ("finishing", "stopped")
    assert "the lease of shard 0 ran out 20 times" in status.reason


def test_two_deaths_alone_condemn_an_image_and_one_has_it_rendered_alone_again(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    job_id = submit_job(1)
    dies([2], alone=2)
    once = must_claim(ledger)
    assert (once.suspects, once.condemned) == ({2}, frozenset())
    ledger.release(once)
    dies([2], alone=2)
    twice = must_claim(ledger)
    assert (twice.suspects, twice.condemned) == (frozenset(), {2})
    ledger.record(twice, [0], failure(2))
    ledger.release(twice)
    again = must_claim(ledger)
    assert again.condemned == {2}, "a failure that was not committed has to be named again"
    ledger.complete(again, [0, 1, 3], failure(2))
    assert (ledger.status(job_id).outcome, ledger.status(job_id).left) == ("failures", 0)


def test_an_image_that_is_done_is_not_charged_with_a_death(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim], client: redis.Redis
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.begin_alone(found, 2)
    ledger.record(found, [2], {})
    client.zadd(redis_keys.LEASES, {f"{job_id}/0": 1})
    assert ledger.reap() == 1
    assert client.exists(redis_keys.job(job_id, "deaths")) == 0


def test_a_worker_that_releases_its_shard_is_not_blamed(
    ledger: Ledger, submit_job: Submit, client: redis.Redis
) -> None:
    job_id = submit_job(1)
    for _ in range(4):
        found = must_claim(ledger)
        ledger.renew({found: [0, 1]}, 30)
        ledger.begin_alone(found, 1)
        ledger.release(found)
    found = must_claim(ledger)
    assert (found.suspects, found.condemned) == (frozenset(), frozenset())
    assert client.exists(redis_keys.job(job_id, "deaths"), redis_keys.job(job_id, "expiries")) == 0


def test_a_worker_that_lost_its_lease_cannot_render_an_image_alone(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    submit_job(1)
    lost = dies([0])
    must_claim(ledger)
    with pytest.raises(LeaseLost):
        ledger.begin_alone(lost, 0)


def test_a_retry_forgets_the_deaths(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim], client: redis.Redis
) -> None:
    job_id = submit_job(1)
    dies([2], alone=2)
    dies([2], alone=2)
    ledger.complete(must_claim(ledger), [0, 1, 3], failure(2))
    ledger.finish(must_claim(ledger))
    send_back(ledger, job_id, [0, 1, 3])
    assert must_claim(ledger).condemned == frozenset()
    assert client.exists(redis_keys.job(job_id, "deaths")) == 0
