"""Prints `INDEX, UUID` of each GPU as nvidia-smi does, but by the driver's library (nvidia-ml-py).

A program of its own, started by its path: a driver that hangs, or dies, takes the process along that asks it.
Exit status 1 where the package or the library is not there, or fails. Warnings go to stderr, a line each.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> int:
    """Prints; returns the exit status."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return 1
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return 1
    for index in range(count):
        try:
            uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))
        except pynvml.NVMLError as error:  # one that has fallen off the bus
            sys.stderr.write(f"GPU {index} does not answer, so it is left alone: {error}\n")
        else:
            sys.stdout.write(f"{index}, {uuid}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
