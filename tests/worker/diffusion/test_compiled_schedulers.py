"""A model's schedulers are compiled once for each number of steps."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import DDIMScheduler

from jobs.errors import RenderError
from worker.diffusion.build_scheduler import build_scheduler
from worker.diffusion.compiled_schedulers import CompiledSchedulers

CONFIG = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").config


class Built:
    """Builds schedulers and counts them."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> Any:
        self.names.append(name)
        return build_scheduler(name, CONFIG)


def test_a_table_is_made_once_for_a_name_and_a_number_of_steps() -> None:
    built = Built()
    schedulers = CompiledSchedulers(built)
    table = schedulers.table("DPM++ 2M", 10)
    assert schedulers.table("DPM++ 2M", 10) is table
    assert schedulers.table("dpm++ 2m", 10) is table, "a name is that of its sampler, however it is written"
    assert schedulers.table("DPM++ 2M", 11).forwards == 11
    assert schedulers.table("DPM++ 2M Karras", 10) is not table
    assert built.names == ["DPM++ 2M", "DPM++ 2M", "DPM++ 2M Karras"]


def test_what_a_scheduler_cannot_run_is_found_out_once() -> None:
    built = Built()
    schedulers = CompiledSchedulers(built)
    for _ in range(2):
        with pytest.raises(RenderError, match="1500: DDIM cannot run so many"):
            schedulers.table("ddim", 1500)
    assert built.names == ["DDIM"]


def test_the_oldest_table_is_forgotten() -> None:
    built = Built()
    schedulers = CompiledSchedulers(built, kept=2)
    for steps in (2, 3, 4, 3, 2):
        assert schedulers.table("DDIM", steps).forwards == steps
    assert len(built.names) == 4, "3 was still there"
