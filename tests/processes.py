"""Processes that tests start and look at."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable

import psutil


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; a process that ends while it is asked has."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_families(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ends these processes and all below them, whatever state they are in."""
    for process in processes:
        family = [process.pid]
        if psutil.pid_exists(process.pid):
            family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        for pid in family:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()
