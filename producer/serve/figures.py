"""What programs ask for: metrics for Prometheus, and whether the mill can be looked at."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from anyio import CapacityLimiter, to_thread
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from jobs.errors import LedgerError, LedgerUnavailable, NoRedis
from jobs.ledger.ledger_view import LedgerView
from jobs.ledger.redis_errors import as_ledger_errors
from producer.metrics.collector import LedgerCollector
from producer.serve.doors import READY
from producer.serve.ledger_watch import LedgerWatch

METRICS: Final = "/metrics"
_PATIENCE: Final = 1.0
"""Seconds that Redis has to say that it is there."""
_SILENT: Final = "Redis does not answer"


def routes(watch: LedgerWatch) -> list[Route]:
    """/metrics, behind the doors as any page is, and /health, which tells nothing of jobs."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(watch.overview))
    at_a_time = CapacityLimiter(1)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # One thread: however many ask, there are threads left for pages.
        text = await to_thread.run_sync(encode, registry, limiter=at_a_time)
        # Bytes: a text's type would be given a charset twice.
        return Response(text, headers={"Content-Type": content_type})

    probe = _Probe(watch)

    async def health(_: Request) -> Response:
        trouble = await probe.trouble()
        return PlainTextResponse(f"{trouble}\n", 503) if trouble else PlainTextResponse("ok\n")

    return [Route(METRICS, metrics), Route(READY, health)]


class _Probe:
    """Asks Redis one question at a time, however many want to know: anybody may ask for /health."""

    def __init__(self, watch: LedgerWatch) -> None:
        self._watch = watch
        self._asked: asyncio.Future[None] | None = None
        self._since = 0.0

    async def trouble(self) -> str:
        """What keeps Redis from being looked at, and no more than that, for anybody may ask; empty where it
        answers within its time. It is told at once where the last question still waits then."""
        if self._asked is None or self._asked.done():
            # A limiter of its own: pages that wait for Redis must not hold this one up.
            question = to_thread.run_sync(self._watch.ask, _ping, limiter=CapacityLimiter(1))
            self._asked, self._since = asyncio.ensure_future(question), time.monotonic()
            self._asked.add_done_callback(asyncio.Future.exception)  # looked at, though nobody waits any more
        left = self._since + _PATIENCE - time.monotonic()
        await asyncio.wait([self._asked], timeout=max(0.0, left))
        if not self._asked.done():
            return _SILENT
        match self._asked.exception():
            case None:
                return ""
            case NoRedis():
                return "there is no Redis"
            case LedgerUnavailable():
                return _SILENT
            case LedgerError():
                return "Redis answers, and refuses this server: the first page says why"
            case error:
                raise error


def _ping(ledger: LedgerView) -> None:
    with as_ledger_errors():
        ledger.client.ping()
