"""What every training stage shares: a learning rate by steps, checkpoints that survive, a log to plot."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
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
    """Write `state` to `path`, whole or not at all."""
    # By way of memory: when the disk is full, torch.save itself only complains of an "unexpected pos".
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state that was saved at `path`, on the CPU; None where there is none yet."""
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Put `data` at `path` in one step: a kill or a full disk meanwhile leaves the file that was there."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def digest(*parts: str | torch.Tensor) -> str:
    """The first 16 hex digits of the SHA-256 of texts and tensors: what a later result was made from."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else part.detach().cpu().numpy().tobytes())
    return sha.hexdigest()[:16]


def changed(state: dict[str, Any], made_from: dict[str, str]) -> str:
    """What differs now from what a state was made from, such as "another VAE"; empty when all is the same."""
    return " and ".join(
        f"another {name}" for name in made_from if state["made_from"][name] != made_from[name]
    )


def say(stage: str, text: str) -> None:
    """Print what a stage does or did."""
    print(f"{stage}: {text}", flush=True)


def log(folder: Path, name: str, **values: float) -> None:
    """Append one JSON line to the folder's log of that name, and print it; one value is its `step`."""
    rounded = {
        key: value if isinstance(value, int) else float(f"{value:.5g}") for key, value in values.items()
    }
    line = json.dumps({"time": round(time.time(), 1), **rounded})
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(name, line, flush=True)


def read_log(folder: Path, name: str) -> list[dict[str, float]]:
    """The log's lines, oldest first, without one that was cut short."""
    path = folder / f"{name}.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def rewind_log(folder: Path, name: str, step: int) -> None:
    """Drop the log's lines of what came after `step`: a run that goes on from there writes them again."""
    lines = [json.dumps(line) + "\n" for line in read_log(folder, name) if line["step"] <= step]
    write_whole(folder / f"{name}.jsonl", "".join(lines).encode())
