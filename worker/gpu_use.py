"""How much of its GPU a worker process uses, by the driver's library (nvidia-ml-py), where both are there."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)
_EVERY = 5.0
"""Seconds between two questions to the driver."""
_OLDEST = 30.0
"""Seconds that an answer is told: a driver that hangs has no figures."""


class GpuUse:
    """Asks the driver now and then, on a thread of its own: one that hangs must hold no heartbeat up."""

    def __init__(self, visible: str | None = None) -> None:
        """visible: CUDA_VISIBLE_DEVICES, which names one GPU by its UUID; None: this process's.

        A number names none here: the library counts GPUs by their place on the bus, CUDA the fastest first.
        """
        self._visible = os.environ.get("CUDA_VISIBLE_DEVICES", "") if visible is None else visible
        self._told: Mapping[str, str | int | float] = {}
        self._at = float("-inf")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-use", daemon=True)

    def start(self) -> None:
        """Begins to ask; without a GPU or the library, nothing happens."""
        if self._visible.startswith(("GPU-", "MIG-")) and "," not in self._visible:
            self._thread.start()

    def stop(self) -> None:
        """Asks no more."""
        self._ended.set()

    def facts(self) -> Mapping[str, str | int | float]:
        """What the driver told last: gpu_memory_used and gpu_memory_total in bytes, gpu_utilisation from 0 to
        1, each where it tells it. Nothing if that is long ago."""
        return self._told if time.monotonic() - self._at < _OLDEST else {}

    def _run(self) -> None:
        try:
            nvml: Any = importlib.import_module("pynvml")
            nvml.nvmlInit()
        except Exception as error:  # not installed, or no driver: NVMLError is known only when it is imported
            log.debug("the GPU's figures are not told: %s", error)
            return
        gpu: Any = None
        while not self._ended.is_set():
            with suppress(nvml.NVMLError):
                gpu = nvml.nvmlDeviceGetHandleByUUID(self._visible) if gpu is None else gpu
                self._told, self._at = _ask(nvml, gpu), time.monotonic()
            self._ended.wait(_EVERY)


def _ask(nvml: Any, gpu: Any) -> Mapping[str, str | int | float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    facts: dict[str, str | int | float] = {
        "gpu_memory_used": int(memory.used),
        "gpu_memory_total": int(memory.total),
    }
    with suppress(nvml.NVMLError):  # a slice of a GPU (MIG) has no utilisation of its own
        facts["gpu_utilisation"] = int(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu) / 100
    return facts
