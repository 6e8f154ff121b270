"""The speeds of devices as Redis keeps them: JSON [slot evaluations, seconds] by device, model and size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

from jobs.ledger.job import SlotsKey

RATE_WINDOW = 600.0
"""Seconds of rendering that a speed is measured over: during one shard the machine may be busy."""


def work_with(known: bytes | None, row_evaluations: int, seconds: float) -> str:
    """What is kept when work is added to the `known`, which counts for at most `RATE_WINDOW`."""
    slots, spent = (0.0, 0.0) if known is None else _work(known)
    kept = min(1.0, RATE_WINDOW / spent) if spent > 0 else 0.0
    return json.dumps([slots * kept + row_evaluations, spent * kept + seconds])


def read_rates(stored: Mapping[bytes, bytes]) -> dict[SlotsKey, float]:
    """Slot evaluations per second. What cannot be read is left out: the next shard measures again."""
    rates = {}
    for size, work in stored.items():
        slots, seconds = _work(work)
        if seconds > 0:
            with suppress(ValueError, TypeError, RecursionError):
                rates[SlotsKey(*json.loads(size))] = slots / seconds
    return rates


def _work(known: bytes) -> tuple[float, float]:
    """Slot evaluations and seconds; none of what cannot be read."""
    try:
        slots, seconds = map(float, json.loads(known))
    except (ValueError, TypeError, RecursionError):
        return 0.0, 0.0
    return (slots, seconds) if 0 <= slots < float("inf") and 0 < seconds < float("inf") else (0.0, 0.0)
