"""Processes that tests start and look at."""

from __future__ import annotations

import psutil


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; a process that ends while it is asked has."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
