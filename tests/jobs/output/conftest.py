"""What tests of an output in a bucket begin with."""

from __future__ import annotations

import pytest

from jobs.output.bucket_store import BucketStore
from tests.jobs.output.buckets import be_patient, in_bucket, know_no_uplink
from tests.object_store.breakable_store import BreakableStore


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer is waited for by seconds, and its uplink is not known."""
    be_patient(monkeypatch, request=3, repeated=2)
    know_no_uplink(monkeypatch)


@pytest.fixture
def store(object_store: BreakableStore, bucket: str) -> BucketStore:
    """A new output in a bucket."""
    return in_bucket(object_store, bucket)
