"""Faults of a bucket, and of the way to it, over jobs that write there: no image is lost, none counted twice.

As test_faults.py, which has the faults of folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault import Fault
from tests.faults.faults import FAULTS_OF_BUCKET
from tests.faults.soak import Soak
from tests.faults.soaks import check_all_once, check_nothing_wrong, each
from tests.faults.store_faults import USUAL_OF_STORE
from tests.object_store.breakable_store import BreakableStore


@pytest.fixture(scope="module")
def store() -> Iterator[BreakableStore]:
    """A store whose way breaks."""
    with BreakableStore() as store:
        yield store


@pytest.fixture(scope="module")
def images_for_each() -> int:
    """Fewer than in folders: each shard takes some twenty requests of a slow server."""
    return 50


@pytest.fixture(autouse=True)
def _past_the_way(store: BreakableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who submits and judges here does not take the way that breaks."""
    for name, value in store.environment(store.direct).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_documents_say_how_many_kinds_there_are() -> None:
    page = Path(__file__).parents[2] / "docs" / "faults.md"
    kinds = {fault.name for fault in FAULTS_OF_BUCKET}
    assert len(kinds) == len(FAULTS_OF_BUCKET)
    assert f"Over a bucket there are {len(kinds)}." in page.read_text()


def test_the_usual_kinds_are_kinds() -> None:
    assert {fault.name for fault in FAULTS_OF_BUCKET} >= USUAL_OF_STORE


@pytest.mark.parametrize("fault", each(FAULTS_OF_BUCKET, USUAL_OF_STORE))
def test_work_goes_on_after(soak: Soak, fault: Fault) -> None:
    soak.strike(fault)
    check_nothing_wrong(soak)


def test_all_images_under_all_these_faults_are_there_once_and_counted_once(soak: Soak) -> None:
    check_all_once(soak)
