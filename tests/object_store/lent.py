"""One object store for the tests of a process, which get it one after the other, each as if it were new."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_store.breakable_store import BreakableStore


@pytest.fixture(scope="session")
def _lent_store() -> Iterator[BreakableStore]:
    """The store that the tests of this process use one after the other; it starts with the first."""
    store = BreakableStore()
    yield store
    store.stop()


@pytest.fixture
def object_store(
    _lent_store: BreakableStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> BreakableStore:
    """A real S3-speaking store, empty, which the environment leads to; the test may break the way to it.

    What outputs in buckets have on this machine lies in the test's folder.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if _lent_store.alive:
        _lent_store.empty()
    else:
        _lent_store.stop()
        _lent_store.start()
    for name, value in _lent_store.environment().items():
        monkeypatch.setenv(name, value)
    return _lent_store


@pytest.fixture
def bucket(object_store: BreakableStore) -> str:
    """The name of an empty bucket of this test's own: what comes late from another test does not reach it."""
    name = f"bucket-{secrets.token_hex(8)}"
    object_store.make_bucket(name)
    return name
