"""`python -m tests.faults.armed_worker --gpus none --name w1`: the supervisor of an armed process."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from jobs.settings import load_settings
from tests.faults.arming import CLOCK, MACHINES, NAME
from worker.host.imagemill_worker import celery_argv, run_worker
from worker.host.supervisor import Pace


def _armed_argv(node: str, slots: int, log_level: str) -> list[str]:
    return [
        part.replace("worker.celery_app", "tests.faults.armed_app")
        for part in celery_argv(node, slots, log_level)
    ]


def _machine(name: str) -> str:
    """The first two have one machine, and each finds there what the other finished."""
    return "first" if name in {"w1", "w2"} else name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--clock", default="0", help="seconds that its clock is off")
    options = parser.parse_args()
    os.environ |= {NAME: options.name, CLOCK: options.clock}
    if MACHINES in os.environ:
        os.environ["XDG_CACHE_HOME"] = str(Path(os.environ[MACHINES]) / _machine(options.name))
        if options.name == "w1":  # copies as older stores do it, the others in one request
            os.environ["AWS_COPY_IF_NOT_EXISTS"] = "multipart"
    # Deaths are the point here: the process is started again at once.
    pace = Pace(first_pause=0.1, longest_pause=0.1, grace=60.0)
    settings = load_settings()
    sys.exit(run_worker(settings, gpu_choice=options.gpus, name=options.name, argv=_armed_argv, pace=pace))
