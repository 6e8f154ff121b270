"""A desk, and engines that are closed at the end of a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from tests.worker.engine.desk import Desk, Start
from worker.engine.engine import Engine
from worker.engine.request_queue import Order


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts an engine on a renderer, or on what loads one, with orders in line; it is closed at the end."""
    engines: list[Engine] = []

    def begin(renderer: object, orders: Sequence[Order] = ()) -> Engine:
        load = renderer if callable(renderer) else lambda _pipeline: renderer
        engines.append(Engine(load))  # type: ignore[arg-type]
        engines[-1].submit(orders)
        engines[-1].start()
        return engines[-1]

    yield begin
    for engine in engines:
        engine.close()
