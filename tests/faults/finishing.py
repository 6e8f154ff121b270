"""Faults at a job's end: a process dies, or stands still, as what describes the job is written."""

from __future__ import annotations

from tests.faults.arming import Order
from tests.faults.field import Field, Leg
from tests.faults.oracle import Verdict


def killed_while_finishing(field: Field, at: str) -> Verdict:
    """A process dies when all is rendered and a job's report is being written."""
    with field.side(8, shard_size=8) as leg:
        field.submit_again(leg)
        field.gone(field.order(Order(at, "kill", matching=_report(leg, at))).pid)
        return field.finish(leg)


def frozen_while_finishing(field: Field, at: str) -> Verdict:
    """A process stands still there, and wakes up when the next job of that output has ended, too."""
    with field.side(8, shard_size=8) as leg:
        field.submit_again(leg)
        met = field.order(Order(at, "freeze", matching=_report(leg, at)))
        name = next(name for name in field.names if field.pid(name) == met.pid)
        found = field.log(name).count("leaving it")
        with field.frozen(met.pid):
            field.taken_from(name)
            first = field.finish(leg)
            assert first.exact, first.problems
            asked, leg.asked, leg.images = leg.asked, [], 16
            field.manifest(16, name=leg.name, output=leg.output, priority=0, **field.layout)
            field.submit_again(leg)
            leg.asked += asked
            field.finish(leg)
        field.wait(lambda: field.log(name).count("leaving it") > found, "who slept has seen that it lost")
        return field.finish(leg)


def _report(leg: Leg, at: str) -> str:
    return "*" if "finish" in at else f"*{leg.name}/job.json"
