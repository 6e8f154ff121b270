"""What every training stage shares: a learning rate by steps, a checkpoint that survives, a log to plot."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch


def half_cosine(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up to `peak`, then a half cosine down to nothing at `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def trapezoid(step: int, steps: int, peak: float, warmup: int, decay: float) -> float:
    """Linear warm-up, a plateau at `peak`, and over the last share `decay` of the steps a line down to 0.

    A run can be given more steps before its decay begins, and is then the same run, only longer.
    """
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` whole: a stage that is killed meanwhile still finds the one before."""
    temporary = path.with_suffix(".new")
    torch.save(state, temporary)
    temporary.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state that was saved at `path`, on the CPU; None where there is none yet."""
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def log(folder: Path, stage: str, **values: float) -> None:
    """Append one JSON line to the stage's log, and print it."""
    line = {"time": round(time.time(), 1), **{key: float(f"{value:.5g}") for key, value in values.items()}}
    with (folder / f"{stage}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(stage, json.dumps(line), flush=True)
