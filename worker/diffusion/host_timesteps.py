"""Timesteps that a scheduler reads on the host, although they are on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def read_on_the_host(scheduler: Any) -> None:
    """Gives a scheduler's steps the timesteps of the host, where it has put them on another device.

    DDIM and others look a timestep up in tables of the host: for each number that they read, the host would
    wait for all that a GPU has yet to do. The numbers are the same; they are copied once, when they are set.
    Does nothing to what has no timesteps.
    """
    if not hasattr(scheduler, "set_timesteps"):
        return
    own_set = scheduler.set_timesteps
    known: list[tuple[torch.Tensor, torch.Tensor]] = []

    @wraps(own_set)
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        own_set(*args, **kwargs)
        known.clear()
        timesteps = scheduler.timesteps
        if isinstance(timesteps, torch.Tensor) and timesteps.device.type != "cpu":
            whole = _whole(timesteps)
            if whole.is_contiguous():
                known.append((whole, whole.flatten().cpu()))

    def on_the_host(value: Any) -> Any:
        """A timestep's own number, where the value is an element of those that were set."""
        if isinstance(value, torch.Tensor) and value.ndim == 0:
            for whole, numbers in known:
                if _whole(value) is whole:
                    return numbers[value.storage_offset() - whole.storage_offset()]
        return value

    def reading(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def read(*args: Any, **kwargs: Any) -> Any:
            return method(
                *map(on_the_host, args), **{name: on_the_host(value) for name, value in kwargs.items()}
            )

        return read

    scheduler.set_timesteps = set_timesteps
    for name in ("scale_model_input", "step"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, reading(getattr(scheduler, name)))


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor is a view of, or itself."""
    return tensor if tensor._base is None else tensor._base
