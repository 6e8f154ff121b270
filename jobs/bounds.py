"""The values that an image's settings may have, and for each setting a check of a value read as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from jobs.errors import ManifestError
from jobs.schedulers import find_scheduler

MAX_SEED: Final = 2**63 - 1
SIDES: Final = range(8, 8192 + 8, 8)
STEPS: Final = range(1, 1000 + 1)
SEEDS: Final = range(MAX_SEED + 1)
COUNTS: Final = range(1, 1_000_000 + 1)
LEAST_GUIDANCE: Final = 1.0
MOST_GUIDANCE: Final = 100.0


def plain_text(value: object) -> str | None:
    """The value when it is a text that JSON, UTF-8 and every table can hold; None for any other."""
    if type(value) is not str or "\0" in value:
        return None
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
    return value


def _whole(numbers: range) -> Callable[[object], int | None]:
    return lambda value: value if type(value) is int and value in numbers else None


_seed = _whole(SEEDS)


def _guidance(value: object) -> float | None:
    if type(value) not in (int, float):
        return None
    return float(value) if LEAST_GUIDANCE <= value <= MOST_GUIDANCE else None  # type: ignore[arg-type, operator]


def _scheduler(value: object) -> str | None:
    try:
        return find_scheduler(value).name if type(value) is str else None
    except ManifestError:
        return None


def _seeds(value: object) -> tuple[int, ...] | None:
    if type(value) not in (list, tuple) or not value:
        return None
    return tuple(value) if all(_seed(seed) is not None for seed in value) else None  # type: ignore[attr-defined, arg-type]


PLAIN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "prompt": plain_text,
    "negative_prompt": plain_text,
    "height": _whole(SIDES),
    "width": _whole(SIDES),
    "num_inference_steps": _whole(STEPS),
    "guidance_scale": _guidance,
    "scheduler": _scheduler,
    "seed": _seed,
    "images_per_prompt": _whole(COUNTS),
    "seeds": _seeds,
    "id": plain_text,
}
"""For each field a function from a value that is right beyond doubt to what PromptLine makes of it; None for
any other value."""
