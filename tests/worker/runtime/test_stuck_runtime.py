"""A process whose engine is stuck for nobody goes on as long as a finishing is written beside it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.ledger.job import JobSpec
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from tests.waiting import LONGEST
from tests.worker.runtime.hired import Worker
from worker.engine import stall_watch
from worker.engine.renderer import Pipeline
from worker.finish import finish_run
from worker.renderers.instant import InstantRenderer
from worker.renderers.loading import Loading


def test_a_process_that_is_stuck_for_nobody_ends_only_once_its_finishing_is_written(
    redis_server: EmbeddedRedis,
    tmp_path: Path,
    job_spec: Callable[..., JobSpec],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    ends: list[int] = []
    written, loaded = threading.Event(), threading.Event()
    finish = finish_run.finish_output

    def finish_slowly(*given: Any, **options: Any) -> int:
        written.wait(LONGEST)
        return finish(*given, **options)

    def hang(_pipeline: Pipeline, _settings: Settings, _loading: Loading) -> InstantRenderer:
        loaded.wait(LONGEST)
        return InstantRenderer(0)

    monkeypatch.setattr(os, "_exit", ends.append)
    monkeypatch.setattr(stall_watch, "NOTICE", 0.2)
    monkeypatch.setattr(stall_watch, "UNWANTED", 0.2)
    first = Worker(redis_server.url, tmp_path, job_spec)
    done = first.submit([1])
    first.serve()
    first.runtime.stop()
    first.runtime.close()
    monkeypatch.setattr(finish_run, "finish_output", finish_slowly)
    monkeypatch.setattr("worker.runtime.load_renderer", hang)
    worker = Worker(redis_server.url, tmp_path, job_spec, stall_limit=LONGEST)
    threads = [threading.Thread(target=worker.serve) for _ in range(2)]
    try:
        threads[0].start()
        wait_until(lambda: worker.announced, "the finishing is claimed")
        other = worker.submit([1], name="dogs")
        threads[1].start()
        wait_until(lambda: worker.runtime.facts()["busy"], "the shard is claimed")
        worker.ledger.control(other, "cancel")
        wait_until(lambda: not worker.runtime.facts()["busy"], "nobody wants what is loaded")
        time.sleep(2.5)  # two looks
        assert worker.runtime.facts()["stuck"]
        assert ends == []
        assert worker.status(done).state == "finishing"
        written.set()
        wait_until(lambda: ends, "it ends")
        assert worker.status(done).state == "finished"
    finally:
        written.set()
        loaded.set()
        for thread in threads:
            thread.join(LONGEST)
        worker.runtime.stop()
        worker.runtime.close()
