"""Shards of a bucket whose tars begin to be read before it is their turn.

Reading a tar's records takes a request, most of which is waiting. So some are under way at a time;
what is read ahead are bytes (`object_access.AHEAD`, and the member of records), and no more of them than of
these shards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from jobs.output.webdataset import TarShard

AT_A_TIME: Final = 16
"""Requests."""


def read_ahead(shards: Iterable[TarShard]) -> Iterator[TarShard]:
    """The same shards in their order, begun (`TarShard.begun`)."""
    waiting: deque[Future[TarShard]] = deque()
    with ThreadPoolExecutor(AT_A_TIME, "ahead") as pool:
        try:
            for shard in shards:
                waiting.append(pool.submit(shard.begun))
                if len(waiting) > AT_A_TIME:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
