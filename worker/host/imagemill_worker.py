"""What `imagemill-worker` does: claim the devices, wait for Redis, keep a worker process on each device."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from jobs.connection import redis_url
from jobs.errors import LedgerError, SettingsError
from jobs.ledger.ledger import Ledger
from jobs.settings import Settings
from worker import logs
from worker.host import gpus
from worker.host.leaving import Leaving, watch, watch_for_notice
from worker.host.redis_wait import wait_for_redis
from worker.host.stop import Stop
from worker.host.supervisor import Child, Pace, supervise
from worker.lease.beat import Beat, sweep

_log = logging.getLogger(__name__)
WAITING = "waiting"
"""The name of the file for health checks that is young while a host waits for Redis: `waiting@HOST`."""


def celery_argv(node: str, concurrency: int, log_level: str) -> list[str]:
    """The command line of one worker process; `node` is its name in Celery, gpu0@host."""
    return [
        *(sys.executable, "-m", "celery", "-q", "-A", "worker.celery_app", "worker"),
        *("-P", "threads", "-c", str(concurrency), "-n", node, "-Q", "imagemill"),
        *("--without-gossip", "--without-mingle", "--loglevel", log_level),
    ]


def run_worker(
    settings: Settings,
    *,
    gpu_choice: str = "auto",
    name: str | None = None,
    lifeline_fd: int | None = None,
    leaving: Leaving | None = None,
    argv: Callable[[str, int, str], list[str]] = celery_argv,
    pace: Pace | None = None,
) -> int:
    """Run the worker processes of this host until a stop is requested; returns the exit status.

    gpu_choice: see `gpus.claim`. name: the host's name when None. leaving: when the stop comes from here.
    Waits for a Redis that is away. Raises SettingsError or LedgerError for what waiting does not fix.
    """
    _require_working_folder()
    leaving = Leaving() if leaving is None else leaving
    leaving.refuse_what_cannot_come()
    host = socket.gethostname() if name is None else name
    pace = Pace() if pace is None else pace
    logs.configure(settings.log_format, settings.log_level, f"supervisor@{host}")
    stop = Stop(until_idle=leaving.until_idle is not None)
    stop.listen(lifeline_fd)
    if leaving.spot_notice is not None:
        watch_for_notice(leaving.spot_notice, stop)
    url = redis_url(settings, say=_log.warning)
    # The orphans of a supervisor that was killed hold their GPUs until they have stopped.
    devices = gpus.claim(gpu_choice, host, settings, patience=1.2 * pace.orphan_grace)
    children = []
    for device in devices:
        node = f"{device.name}@{host}"
        command = argv(node, settings.concurrency, settings.log_level)
        children.append(Child(device, node, command, Beat(settings, node)))
    # An earlier life of this container may have left some.
    sweep(settings, host)
    for child in children:
        child.beat.end()
    with Beat(settings, f"{WAITING}@{host}"):
        wait_for_redis(url, stop, allow_eviction=settings.allow_eviction, patience=leaving.redis_patience)
    environment = settings.model_copy(update={"redis_url": SecretStr(url)}).environment()
    if gpu_choice not in ("auto", "none") and settings.device == "auto":
        # A torch that cannot use the GPU which was asked for refuses jobs, and renders none on the CPU.
        environment["IMAGEMILL_DEVICE"] = "cuda"
    # OpenMP's threads spin while they wait for each other: on a core that others use too, that made rendering
    # on a CPU nine times slower.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    def nodes() -> list[str]:
        return [child.node for child in children if not child.given_up]

    ledger = Ledger(url)
    # What earlier processes of these names refused, these may take. They say so as well, but start slowly.
    for child in children:
        with suppress(LedgerError):
            ledger.forget_refusals(child.node)
    watch(leaving, stop, ledger, nodes, settings.models)
    return supervise(children, environment, stop, pace)


def _require_working_folder() -> None:
    """Ends this process, and not one worker process after the other, where the folder was removed."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise SettingsError(
            "the folder that this was started in has been removed: `cd` to one that is there"
        ) from None
