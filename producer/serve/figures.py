"""What programs ask for: metrics for Prometheus, and whether the mill can be looked at."""

from __future__ import annotations

from functools import partial
from typing import Final

from anyio import fail_after, to_thread
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from jobs.errors import LedgerError
from jobs.ledger.ledger_view import LedgerView
from jobs.ledger.redis_errors import as_ledger_errors
from producer.metrics.collector import LedgerCollector
from producer.serve.doors import READY
from producer.serve.ledger_watch import LedgerWatch

METRICS: Final = "/metrics"
_PATIENCE: Final = 1.0
"""Seconds that Redis has to say that it is there."""


def routes(watch: LedgerWatch) -> list[Route]:
    """/metrics, behind the doors as any page is, and /health, which tells nothing of jobs."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(partial(watch.ask, LedgerView.overview)))

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # Bytes: a text's type would be given a charset twice.
        text = await to_thread.run_sync(encode, registry)
        return Response(text, headers={"Content-Type": content_type})

    async def health(_: Request) -> Response:
        try:
            with fail_after(_PATIENCE):
                await to_thread.run_sync(watch.ask, _ping, abandon_on_cancel=True)
        except (LedgerError, TimeoutError):
            # No more than that: who asks may be anybody.
            return PlainTextResponse("Redis does not answer\n", 503)
        return PlainTextResponse("ok\n")

    return [Route(METRICS, metrics), Route(READY, health)]


def _ping(ledger: LedgerView) -> None:
    with as_ledger_errors():
        ledger.client.ping()
