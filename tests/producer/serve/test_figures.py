"""What programs ask the pages for: /metrics and /health, through the doors, over a real connection."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from jobs.ledger.ledger_view import LedgerView
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.metrics.families import FAMILIES
from producer.serve import ledger_watch
from producer.serve.doors import Doors
from producer.serve.ledger_watch import LedgerWatch
from producer.serve.opened import site_of
from producer.serve.outputs import Outputs
from producer.serve.pages import Pages
from producer.serve.server import listen, serving
from producer.serve.site import Site
from tests.jobs.ledger.claims import Submit
from tests.ports import connections_at
from tests.waiting import LONGEST, WaitUntil

TOKEN = "long-enough-to-be-a-token"


class HasAddress(Protocol):
    """A server of Redis, or what is taken for one."""

    url: str


@dataclass
class Named:
    """An address of Redis."""

    url: str


class Silent:
    """A server that takes connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.url = f"redis://127.0.0.1:{self._socket.getsockname()[1]}/0"
        self.taken: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                self.taken.append(self._socket.accept()[0])

    def close(self) -> None:
        """Ends it, and all connections."""
        self._socket.shutdown(socket.SHUT_RDWR)
        for one in (self._socket, *self.taken):
            one.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    """A Redis that takes connections and never answers."""
    server = Silent()
    yield server
    server.close()


@contextmanager
def served(server: HasAddress, token: str | None = None) -> Iterator[str]:
    """The address of pages of that Redis."""
    listener = listen("127.0.0.1", 0)
    settings = Settings(redis_url=server.url)  # type: ignore[arg-type]
    with serving(listener, lambda: site_of(settings, [], token)):
        yield listener.url


def get(url: str, **headers: str) -> tuple[int, str, str]:
    """Status, type and text."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def test_a_scrape_is_what_prometheus_reads(redis_server: EmbeddedRedis, submit_job: Submit) -> None:
    job_id = submit_job(2)
    with served(redis_server) as url:
        status, kind, text = get(f"{url}/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    found = {
        (sample.name, sample.labels.get("job_id"), sample.labels.get("state")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["imagemill_images", job_id, "left"] == 8
    assert found["imagemill_shards", job_id, "waiting"] == 2
    assert found["imagemill_redis_memory_used_bytes", None, None] > 100_000
    for family in FAMILIES:
        if not family.name.startswith("imagemill_worker"):  # none is alive
            assert f"# HELP {family.name} " in text
            assert f"# TYPE {family.name} {family.kind}" in text


def test_openmetrics_is_given_to_who_asks_for_it(redis_server: EmbeddedRedis) -> None:
    accept = "application/openmetrics-text;version=1.0.0"
    with served(redis_server) as url:
        _, kind, text = get(f"{url}/metrics", Accept=accept)
    assert kind.startswith("application/openmetrics-text")
    names = {family.name for family in openmetrics.text_string_to_metric_families(text)}
    assert {"imagemill_redis_up", "imagemill_refusals"} <= names


def test_with_a_token_metrics_need_it_and_health_does_not(redis_server: EmbeddedRedis) -> None:
    with served(redis_server, TOKEN) as url:
        assert get(f"{url}/metrics")[0] == 401
        assert get(f"{url}/metrics", Authorization="Bearer another-token-that-is-wrong")[0] == 401
        assert get(f"{url}/metrics", Authorization=f"Bearer {TOKEN}", Host="serve:8484")[0] == 200
        assert get(f"{url}/health", Host="10.0.0.7:8484")[::2] == (200, "ok\n")


def test_health_says_that_redis_refuses_and_not_that_it_is_silent(redis_server: EmbeddedRedis) -> None:
    parts = urlsplit(redis_server.url)
    wrong = Named(urlunsplit(parts._replace(netloc=f":a-wrong-password@{parts.hostname}:{parts.port}")))
    with served(wrong) as url:
        status, _, text = get(f"{url}/health")
    assert (status, text) == (503, "Redis answers, and refuses this server: the first page says why\n")


def test_without_redis_metrics_say_so_and_health_fails_until_it_is_back(
    redis_server: EmbeddedRedis, wait_until: WaitUntil
) -> None:
    with served(redis_server) as url:
        assert "imagemill_redis_up 1.0" in get(f"{url}/metrics")[2]
        redis_server.stop()
        texts: list[str] = []

        def gone() -> bool:
            status, _, text = get(f"{url}/metrics")
            assert status == 200
            texts.append(text)
            return "imagemill_redis_up 0.0" in text

        wait_until(gone, "the next second says that Redis is away")
        text = texts[-1]
        assert "imagemill_scrape_errors_total 1.0" in text
        assert "imagemill_jobs" not in text
        status, _, text = get(f"{url}/health")
        assert (status, text) == (503, "Redis does not answer\n"), "nothing of where it is"


def test_health_waits_no_longer_than_a_second_for_a_redis_that_hangs(redis_server: EmbeddedRedis) -> None:
    with served(redis_server) as url:
        assert get(f"{url}/health")[0] == 200
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            status, _, text = get(f"{url}/health")
            waited = time.monotonic() - began
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
    assert status == 503
    assert text == "Redis does not answer\n"
    assert waited < 4  # a call waits five; this machine may be busy


def test_many_who_ask_for_health_cost_one_question_to_a_redis_that_never_answers(silent: Silent) -> None:
    with served(silent) as url, ThreadPoolExecutor(60) as visitors:
        get(f"{url}/healthz")
        asked = [visitors.submit(get, f"{url}/health") for _ in range(15)]
        answers = {one.result() for one in asked}
        connections = len(silent.taken)
        # All pages wait, and hold the threads that pages have.
        pages = [visitors.submit(get, f"{url}/") for _ in range(45)]
        began = time.monotonic()
        answers.add(get(f"{url}/health"))
        waited = time.monotonic() - began
        for page in pages:
            page.result()
    assert {status for status, _, _ in answers} == {503}
    assert connections <= 2  # a busy machine may take five seconds for fifteen visitors, and ask again
    assert waited < 4  # pages wait five; this machine may be busy


def test_many_scrapes_of_a_redis_that_hangs_keep_no_page_waiting(
    redis_server: EmbeddedRedis, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_watch, "STALE", LONGEST)
    watch = LedgerWatch(lambda: LedgerView(redis_server.url, timeout=LONGEST))
    doors = Doors()
    site = Site(watch, Outputs([], watch), Pages(guarded=False), doors)
    listener = listen("127.0.0.1", 0)
    with serving(listener, lambda: site), ThreadPoolExecutor(60) as visitors:
        assert get(f"{listener.url}/")[0] == 200
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            monkeypatch.setattr(ledger_watch, "OLDEST", 0.0)
            scrapes = [visitors.submit(get, f"{listener.url}/metrics") for _ in range(60)]
            wait_until(lambda: connections_at(listener.url) >= 60, "all have asked")
            assert get(f"{listener.url}/")[0] == 200
            assert not any(scrape.done() for scrape in scrapes)
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
        assert {scrape.result()[0] for scrape in scrapes} == {200}


@pytest.mark.parametrize("page", ["/metrics", "/health"])
def test_neither_is_kept_by_who_asks(redis_server: EmbeddedRedis, page: str) -> None:
    with served(redis_server) as url, urllib.request.urlopen(f"{url}{page}", timeout=30) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
