"""The tables of one model's schedulers, by name and number of steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from jobs.errors import RenderError
from jobs.schedulers import find_scheduler
from worker.diffusion.scheduler_table import SchedulerTable, compile_scheduler

log = logging.getLogger(__name__)


class CompiledSchedulers:
    """Compiles each scheduler once for each number of steps. Not thread-safe, as the model is not."""

    def __init__(self, build: Callable[[str], Any], kept: int = 256) -> None:
        """build(name): diffusers' scheduler of a canonical name. kept: tables, the oldest goes first."""
        self._build, self._kept = build, kept
        self._found: dict[tuple[str, int], SchedulerTable | str] = {}

    def table(self, scheduler: str, num_inference_steps: int) -> SchedulerTable:
        """The table of the sampler of this name.

        Raises RenderError when diffusers' scheduler cannot take that number of steps. Warns, once, of one
        that has no coefficients and steps by itself.
        """
        key = find_scheduler(scheduler).name, num_inference_steps
        if key not in self._found:
            if len(self._found) == self._kept:
                del self._found[next(iter(self._found))]
            self._found[key] = self._table_or_reason(*key)
        found = self._found[key]
        if isinstance(found, str):
            raise RenderError(found)
        return found

    def _table_or_reason(self, name: str, num_inference_steps: int) -> SchedulerTable | str:
        """The table, or why there is none."""
        try:
            table = compile_scheduler(self._build(name), num_inference_steps)
        except Exception as error:  # schedulers raise various errors, such as ValueError and IndexError
            return (
                f"num_inference_steps = {num_inference_steps}: {name} cannot run so many ({error}): use "
                "another number, or another scheduler"
            )
        if table.coefficients is None:
            no_table = "%s at %d steps has no table (%s): it steps by itself, image by image"
            log.warning(no_table, name, num_inference_steps, table.reason)
        return table
