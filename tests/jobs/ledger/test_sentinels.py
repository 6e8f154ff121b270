"""What real Sentinels are asked by the ledger, the broker and Flower, and what each wrong answer comes to."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator

import pytest
from flower.utils.broker import Broker

from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger.broker import celery_app, wake
from jobs.ledger.ledger import Ledger
from tests.sentinels import Sentinels
from worker.host.redis_wait import wait_for_redis
from worker.host.stop import Stop

ASKED: dict[str, Callable[[str], object]] = {
    "ledger": lambda url: Ledger(url).ping(),
    "broker": lambda url: wake(celery_app(url), 1),
    "worker": lambda url: wait_for_redis(url, Stop()),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels(tmp_path_factory.mktemp("set") / "of") as started:
        yield started


def test_ledger_broker_and_flower_find_the_master(server: Sentinels) -> None:
    app = celery_app(server.url)
    wake(app, 3)
    assert Ledger(server.url).queued() == 3
    with app.connection() as connection:
        found = connection.as_uri(include_password=True)
    flower = Broker(found, broker_options=app.conf.broker_transport_options)
    assert asyncio.run(flower.queues(["imagemill"])) == [{"name": "imagemill", "messages": 3}]


@pytest.mark.parametrize("who", ASKED)
@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        ((r"master_name=\w+", "master_name=other"), "knows no master of that name: correct master_name"),
        ((r"l_password=[\w-]+", "l_password=wrong"), "the Sentinels' own is sentinel_password="),
        ((r"&sentinel_password=[\w-]+", ""), "the Sentinels' own is sentinel_password="),
        ((r"//:[\w-]+@", "//:wrong@"), "invalid username-password pair"),
    ],
    ids=["another name", "a wrong password", "no password", "a wrong password of Redis"],
)  # fmt: skip
def test_what_waiting_does_not_mend_is_an_error_in_a_line(
    server: Sentinels, who: str, change: tuple[str, str], trouble: str
) -> None:
    url = re.sub(*change, server.url)
    assert url != server.url
    with pytest.raises(LedgerError, match=trouble) as refused:
        ASKED[who](url)
    assert not isinstance(refused.value, LedgerUnavailable)
    assert "\n" not in str(refused.value)
    assert "redis.client" not in str(refused.value)


@pytest.mark.parametrize("who", ["ledger", "broker"])
def test_a_sentinel_that_is_away_is_passed_over_at_once(server: Sentinels, who: str) -> None:
    began = time.monotonic()
    ASKED[who](server.url.replace("@", "@127.0.0.1:1;"))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("who", ["ledger", "broker"])
def test_sentinels_that_are_all_away_are_waited_for(who: str) -> None:
    with pytest.raises(LedgerUnavailable, match=r"no Sentinel names a master 'm': 127.0.0.1:1: Error 111"):
        ASKED[who]("sentinel://127.0.0.1:1;127.0.0.1:2/0?master_name=m")


@pytest.mark.parametrize("who", ASKED)
def test_a_redis_among_sentinels_places_is_named(server: Sentinels, who: str) -> None:
    password, port = server.place_of_master()
    url = f"sentinel://127.0.0.1:{port}/0?master_name=m&sentinel_password={password}"
    with pytest.raises(LedgerError, match="name Sentinels in IMAGEMILL_REDIS_URL, or write redis://"):
        ASKED[who](url)
