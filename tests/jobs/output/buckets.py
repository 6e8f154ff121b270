"""What tests of a bucket share: small parts, little patience, and what a worker does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.location import BucketPlace
from jobs.output import bucket_client, upload_pace
from jobs.output.bucket_client import Patience
from jobs.output.bucket_store import BucketStore
from jobs.output.store import Stage, Unreachable
from jobs.output.upload_pace import Pace, Uplink
from tests.object_store.breakable_store import BreakableStore

FIRST, FULL = Pace(64 << 10, 1), Pace(96 << 10, 4)
"""The paces of these tests, whose store takes small parts."""
SMALL, LARGE = b"a tar", os.urandom(2 * FIRST.part)
"""Less and more than a part of an upload."""
TAR = "00003.tar"


def be_patient(monkeypatch: pytest.MonkeyPatch, *, request: int, repeated: int) -> None:
    """How many seconds a request may take, and is begun again."""
    pauses = (0.05, 0.1, 0.2, 0.4, 0.8)
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(request, repeated, pauses, settled=0.01))


def know_no_uplink(monkeypatch: pytest.MonkeyPatch) -> Uplink:
    """As in a new process, with small parts."""
    uplink = Uplink(FIRST, FULL, small=FIRST.part // 4)
    monkeypatch.setattr(upload_pace, "UPLINK", uplink)
    return uplink


def in_bucket(object_store: BreakableStore, bucket: str) -> BucketStore:
    """The output in a bucket of a store that copies to free names only."""
    object_store.check("copies")
    return BucketStore(BucketPlace("s3", bucket, "out"))


def staged(folder: Path, name: str = "a", confirm: Callable[[], None] = lambda: None) -> Stage:
    """A stage of an attempt on this shard."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    return Stage(folder / name, f"00003/000001-{name}", confirm)


def file(stage: Stage, contents: bytes) -> Path:
    """The attempt's tar."""
    path = stage.folder / TAR
    path.write_bytes(contents)
    return path


def committed(store: BucketStore, stage: Stage, contents: bytes) -> str:
    """What a worker does: it tries again while there is no answer; what is there already was committed."""
    for _ in range(4):
        try:
            store.put_if_absent(TAR, file(stage, contents), stage)
        except Unreachable:
            continue
        except FileExistsError:
            return "there"
        return "put"
    return "away"
