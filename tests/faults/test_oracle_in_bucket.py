"""The oracle sees each thing that can be wrong with what a finished job left in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from tests.breakable_redis import BreakableRedis
from tests.faults.field import Field, Leg
from tests.faults.oracle import judge
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.clients import client, content, keys

Spoil = Callable[[S3Store], object]


@pytest.fixture(scope="module")
def store() -> Iterator[BreakableStore]:
    with BreakableStore() as store:
        yield store


@pytest.fixture(autouse=True)
def _past_the_way(store: BreakableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.environment(store.direct).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def own_field(tmp_path_factory: pytest.TempPathFactory, store: BreakableStore) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("oracle")
    with BreakableRedis(folder / "redis") as server:
        field = Field(folder, server, seed=1, workers=1, store=store)
        yield field
        field.stop()


@pytest.fixture
def finished(own_field: Field) -> tuple[Field, Leg]:
    """A job of 24 images that ended well."""
    if own_field.leg is None:
        own_field.start_worker("w1")
        leg = own_field.leg = own_field.begin("good", 24, shard_size=8)
        assert own_field.finish(leg).problems == []
        assert own_field.end_worker("w1") == 0
    return own_field, own_field.leg


def copy(name: str, to: str) -> Spoil:
    return lambda store: obstore.copy(store, f"good/{name}", f"good/{to}")


def put(name: str, data: bytes = b"x") -> Spoil:
    return lambda store: obstore.put(store, f"good/{name}", data)


def delete(name: str) -> Spoil:
    return lambda store: obstore.delete(store, f"good/{name}")


SPOILT: dict[str, tuple[Spoil, str]] = {
    "a shard is gone": (delete("00001.tar"), "lost: 8"),
    "a shard is there twice": (copy("00000.tar", "00003.tar"), "doubled"),
    "a shard is another one": (copy("00000.tar", "00002.tar"), "lost: 8"),
    "a parquet is gone": (delete("00001.parquet"), "tars without a parquet"),
    "an upload is left": (put(".imagemill/uploads/00001/000001-5f3a9c1e/00001.tar"), "left behind"),
    "a probe is left": (put(".imagemill/uploads/probe-5f3a9c1e"), "left behind"),
    "something else is there": (put("notes.txt"), "left behind"),
    "a report of something else": (
        put("job.json", b'{"job_id": "x", "outcome": "", "images": {"done": 1}}'), "job.json says"
    ),
    "a parquet of something else": (put("00001.parquet", b"no table"), "doctor"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_the_oracle_names_what_is_wrong(finished: tuple[Field, Leg], what: str) -> None:
    field, leg = finished
    store = client(field.bucket)
    kept = {key: content(store, key) for key in keys(store)}
    spoil, message = SPOILT[what]
    spoil(store)
    try:
        problems = judge(leg.output, field.client, leg.job_id, leg.asked).problems
    finally:
        obstore.delete(store, [key for key in keys(store) if key not in kept] or ["none"])
        for key, data in kept.items():
            obstore.put(store, key, data)
    assert any(message in problem for problem in problems), problems


def test_the_oracle_finds_nothing_wrong_with_what_is_right(finished: tuple[Field, Leg]) -> None:
    field, leg = finished
    verdict = judge(leg.output, field.client, leg.job_id, leg.asked, field.begun())
    assert (verdict.images, verdict.files, verdict.bits, verdict.counted, verdict.problems) == (
        24, 24, 24, 24, [],
    )  # fmt: skip
