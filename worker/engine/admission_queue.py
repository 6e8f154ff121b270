"""Images that wait for slots, and which of them goes next."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

_PASSED_OVER = 100
"""Forwards by which a small image may be behind a big one that finds too few slots free, and still go first:
then those slots stay empty until there are enough, or small images could follow each other for ever."""


@dataclass(order=True, frozen=True, slots=True)
class _Ticket(Generic[Item]):
    rank: int
    number: int
    item: Item = field(compare=False)


class AdmissionQueue(Generic[Item]):
    """A line in which the longest goes first, so that no long image is left over to run in empty slots.

    A forward of waiting counts as much as a forward of length: what is short is passed over for a while,
    never for good. Equals go in the order in which they came. Images that take as many slots stand in a line
    of their own, because what is free may suit only the small ones.
    """

    def __init__(self) -> None:
        self._lines: dict[int, list[_Ticket[Item]]] = {}
        self._came = 0

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def add(self, item: Item, *, slots: int, forwards: int, now: int) -> None:
        """Puts an item in line. slots: 1 or more. forwards: its length; now: forwards run so far."""
        self._came += 1
        # Longest first with its waiting counted in: length + (later - now) ranks as length - now does.
        heapq.heappush(self._lines.setdefault(slots, []), _Ticket(now - forwards, self._came, item))

    def take(self, free_slots: int) -> list[Item]:
        """The next items that fit into `free_slots` slots together, out of the line."""
        taken: list[Item] = []
        while fitting := [slots for slots, line in self._lines.items() if line and slots <= free_slots]:
            slots = min(fitting, key=lambda slots: self._lines[slots][0])
            first = min(line[0].rank for line in self._lines.values() if line)
            if self._lines[slots][0].rank - first > _PASSED_OVER:
                break
            taken.append(heapq.heappop(self._lines[slots]).item)
            free_slots -= slots
        return taken

    def upcoming(self, count: int) -> list[Item]:
        """About the next `count` items, still in line."""
        heads = (ticket for line in self._lines.values() for ticket in line[:count])
        return [ticket.item for ticket in heapq.nsmallest(count, heads)]

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Takes every unwanted item out of the line."""
        removed: list[Item] = []
        for slots, line in self._lines.items():
            removed += [ticket.item for ticket in line if unwanted(ticket.item)]
            self._lines[slots] = [ticket for ticket in line if not unwanted(ticket.item)]
            heapq.heapify(self._lines[slots])
        return removed


def queue_of(items: Iterable[tuple[Item, int, int]]) -> AdmissionQueue[Item]:
    """A line of (item, slots, forwards) that came together."""
    waiting: AdmissionQueue[Item] = AdmissionQueue()
    for item, slots, forwards in items:
        waiting.add(item, slots=slots, forwards=forwards, now=0)
    return waiting
