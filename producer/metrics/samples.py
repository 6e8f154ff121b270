"""Figures on their way to Prometheus: each family once, each set of labels once, and only finite figures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from producer.metrics.families import Family

LONGEST: Final = 200
"""Characters of a label's value: models, devices and workers are strangers' text."""


class Samples:
    """Collects figures and gives them as prometheus-client's families, in the order of their first figure."""

    def __init__(self) -> None:
        self._held: dict[Family, dict[tuple[str, ...], float]] = {}

    def declare(self, *families: Family) -> None:
        """Gives families that may have no figure: who looks sees that they are known."""
        for family in families:
            self._held.setdefault(family, {})

    def set(self, family: Family, value: float, *labels: str) -> None:
        """A figure; the last one holds. One that is not finite is left out."""
        if math.isfinite(value):
            self._held.setdefault(family, {})[_cut(labels)] = float(value)

    def add(self, family: Family, value: float, *labels: str) -> None:
        """Adds to a figure, which begins at 0."""
        key = _cut(labels)
        self.set(family, self._held.get(family, {}).get(key, 0.0) + value, *key)

    def families(self) -> Iterator[Metric]:
        """What prometheus-client writes; it escapes what labels hold."""
        for family, figures in self._held.items():
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(family.name, family.meaning, labels=family.labels)
            for labels, value in figures.items():
                metric.add_metric(labels, value)
            yield metric


def _cut(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text if len(text) <= LONGEST else _short(text) for text in labels)


def _short(text: str) -> str:
    """A text whose end is replaced by its hash, so that texts that differ late stay apart."""
    end = f"…{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"
    return text[: LONGEST - len(end)] + end
