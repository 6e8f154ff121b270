"""What a renderer's steps take, added to the process's seconds of sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from worker.stage_seconds import SPENT

Step = TypeVar("Step")


def timed_steps(steps: Iterable[Step], clock: Callable[[], float]) -> Iterator[Step]:
    """The same steps. What each takes is added as `sample`, but for what it added itself as `decode`.

    clock: seconds, without those in which the steps stood still. A GPU tells late what decoding took: then
    more was decoded within a step than it lasted, and later ones make up for it. So no sum ever shrinks.
    """
    each, owed = iter(steps), 0.0
    while True:
        began, decoded = clock(), SPENT.of_this_thread("decode")
        try:
            step = next(each)
        except StopIteration:
            return
        finally:
            took = clock() - began
            owed += SPENT.of_this_thread("decode") - decoded
            sampled = max(0.0, took - owed)
            SPENT.add("sample", sampled)
            owed -= took - sampled
        yield step
