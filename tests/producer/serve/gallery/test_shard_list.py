"""A listing of an output's shards is kept for as long as it pays."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.output.output import Output
from producer.serve.gallery.shard_list import ShardList


class Listed:
    """A store of an output whose listings take a while by a clock that is turned by hand."""

    def __init__(self, store: object, takes: float) -> None:
        self._store, self._takes, self.listings, self.now = store, takes, 0, 100.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def clock(self) -> float:
        return self.now

    def list(self, folder: str = "") -> object:
        self.listings += 1
        self.now += self._takes
        return self._store.list(folder)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("takes", "kept"), [(0.0, 2.0), (1.0, 20.0)])
def test_a_listing_is_kept_twenty_times_as_long_as_it_took_and_two_seconds_at_least(
    takes: float, kept: float, rendered: Callable[..., Output]
) -> None:
    output = rendered(8)
    output.settle_names(output.names)
    store = Listed(output.store, takes)
    shards = ShardList(Output(output.path, store), store.clock)  # type: ignore[arg-type]
    assert [*shards.listed()] == [0, 1]
    listings, listed = store.listings, store.now
    store.now = listed + kept - 0.1
    assert [*shards.listed()] == [0, 1] and shards.following(7) is None and shards.ordinal(1) == 1
    assert store.listings == listings
    store.now = listed + kept + 0.1
    assert [*shards.listed()] == [0, 1]
    assert store.listings == 2 * listings
