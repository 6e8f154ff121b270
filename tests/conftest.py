"""What every test may ask for: a Redis of its own, and a deadline instead of a sleep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer.embedded_redis import EmbeddedRedis


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A real Redis on a free loopback port; a machine without one fails the test."""
    with EmbeddedRedis(folder=tmp_path / "redis") as server:
        yield server


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Polls a condition until it holds; fails the test, with what was awaited, at the deadline."""

    def wait(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds} s in vain: {what}")
            time.sleep(0.05)

    return wait


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own settings and connection files reach no test."""
    import os

    for variable in list(os.environ):
        if variable.startswith("IMAGEMILL_"):
            monkeypatch.delenv(variable)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("IMAGEMILL_RUNTIME_DIR", str(runtime))
