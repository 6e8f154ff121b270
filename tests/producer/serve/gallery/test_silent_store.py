"""A store that gives no answer keeps those waiting who look at its output, and nobody else."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from jobs.output.output import Output
from jobs.output.webdataset import TarShard
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.serve.gallery.shard_indices import ShardIndices
from producer.serve.opened import site_of
from producer.serve.outputs import key_of
from producer.serve.server import listen, serving
from tests.silent_store import SilentStore
from tests.waiting import WaitUntil

VISITS = 12
PATIENCE = 20
"""Seconds: a page takes a few milliseconds. The store is silent until the test ends."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentStore]:
    """The store of every bucket."""
    with SilentStore() as store:
        store.lead(monkeypatch)
        yield store


def status(url: str) -> int:
    """What a page answers."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def later(url: str) -> Future[int]:
    """A visit that nobody waits for."""
    threads = ThreadPoolExecutor(1)
    visit = threads.submit(status, url)
    threads.shutdown(wait=False)
    return visit


@pytest.mark.parametrize("visited", ["", "/0/0/small?v=0123456789abcdef"], ids=["pages", "thumbnails"])
def test_the_pages_of_other_outputs_are_served_meanwhile(
    visited: str,
    rendered: Callable[..., Output],
    redis_server: EmbeddedRedis,
    store: SilentStore,
    wait_until: WaitUntil,
) -> None:
    here, there = rendered(2), Output.at(store.place)
    settings, listener = Settings(redis_url=redis_server.url), listen("127.0.0.1", 0)  # type: ignore[arg-type]
    with ExitStack() as stack:
        stack.enter_context(serving(listener, lambda: site_of(settings, [here, there])))
        stack.callback(store.stop)
        near, far = (f"{listener.url}/outputs/{key_of(output.label)}" for output in (here, there))
        visits = [later(far + visited) for _ in range(VISITS)]
        wait_until(lambda: store.asked >= 2, "the store is asked")
        for page in ("", "/0/0", "/0/1/small?v=0123456789abcdef", "/0/1/file", "/bar"):
            assert status(near + page) == 200
        assert not any(visit.done() for visit in visits)


def test_a_tar_is_indexed_while_another_one_is_waited_for(
    rendered: Callable[..., Output], store: SilentStore, wait_until: WaitUntil
) -> None:
    here, there = rendered(2, layout="webdataset"), Output.at(store.place)
    near, far = (TarShard(output.store, 0, here.names) for output in (here, there))
    indices = ShardIndices()
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(2))
        stack.callback(store.stop)
        waits = threads.submit(indices.of_tar, far)
        wait_until(lambda: store.asked, "the store is asked")
        assert len(threads.submit(indices.of_tar, near).result(PATIENCE).positions) == 2
        assert not waits.done()
