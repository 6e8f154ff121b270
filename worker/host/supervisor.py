"""Keeps one Celery process per claimed GPU alive, and takes them all down in an orderly way."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from jobs import connection, lifeline
from jobs.errors import LedgerError, LedgerUnavailable, SettingsError
from jobs.settings import load_settings
from worker import logs
from worker.host import gpus

_log = logging.getLogger(__name__)

REFUSED = 2
"""The exit status of a worker process whose settings, model or Redis are wrong: starting it again is vain."""
_REFUSALS = 5
_POLL = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """How restarts and stops are timed, in seconds."""

    first_pause: float = 1.0
    """Before the first restart; doubled for each further one …"""
    longest_pause: float = 30.0
    """… up to this."""
    healthy_after: float = 60.0
    """A process that has run so long starts again with `first_pause` when it dies."""
    grace: float = 120.0
    """From SIGTERM to SIGKILL: more than one micro-batch, after which a worker has handed back its work."""
    orphan_grace: float = 10.0
    """The same once the process that started the supervisor is gone: nobody is left to wait for it."""


class Stop:
    """Requests to stop: by SIGTERM or SIGINT, or because the process that started this one is gone."""

    def __init__(self) -> None:
        self.signals = 0
        self.orphaned = False

    def __bool__(self) -> bool:
        return self.signals > 0 or self.orphaned

    def listen(self, lifeline_fd: int | None) -> None:
        """Take SIGTERM and SIGINT from now on, and watch the lifeline where there is one."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        if lifeline_fd is not None:
            lifeline.watch(lifeline_fd, self._on_gone)

    def wait(self, seconds: float) -> None:
        """Sleep for `seconds`, less when a stop is requested."""
        deadline = time.monotonic() + seconds
        while not self and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_POLL, left))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1

    def _on_gone(self) -> None:
        self.orphaned = True


def celery_argv(node: str, concurrency: int, log_level: str) -> list[str]:
    """The command line of one worker process; `node` is its name in Celery, gpu0@host."""
    return [
        *(sys.executable, "-m", "celery", "-q", "-A", "worker.celery_app", "worker"),
        *("-P", "threads", "-c", str(concurrency), "-n", node, "-Q", "imagemill"),
        *("--without-gossip", "--without-mingle", "--loglevel", log_level),
    ]


def run_worker(
    *,
    models: Sequence[str] = (),
    gpu_choice: str = "all",
    batch_size: int | None = None,
    mixed_hardware: bool = False,
    concurrency: int | None = None,
    name: str | None = None,
    log_format: logs.Format | None = None,
    lifeline_fd: int | None = None,
    argv: Callable[[str, int, str], list[str]] = celery_argv,
    pace: Pace | None = None,
) -> int:
    """Run the worker processes of this host until told to stop; returns the exit status.

    What is None or empty is taken from the environment (`jobs.settings`). Waits for a Redis that is away.
    Raises SettingsError or LedgerError for what waiting cannot mend.
    """
    settings = load_settings()
    host = socket.gethostname() if name is None else name
    form = settings.log_format if log_format is None else log_format
    concurrency = settings.concurrency if concurrency is None else concurrency
    models = tuple(models) or settings.models
    for model in models:
        if "," in model:
            raise SettingsError(f"--model {model}: a worker's model may not have a comma in its name")
    logs.configure(form, settings.log_level, f"supervisor@{host}")
    stop = Stop()
    stop.listen(lifeline_fd)

    url = connection.redis_url(settings, say=_log.warning)
    pace = Pace() if pace is None else pace
    # The orphans of a supervisor that was killed hold their GPUs until they have stopped.
    devices = gpus.claim(gpu_choice, host, settings, patience=1.2 * pace.orphan_grace)
    wait_for_redis(url, stop)
    chosen = {
        "IMAGEMILL_REDIS_URL": url,
        "IMAGEMILL_CONCURRENCY": str(concurrency),
        "IMAGEMILL_LOG_FORMAT": form,
    }
    if batch_size is not None:
        chosen["IMAGEMILL_BATCH_SIZE"] = str(batch_size)
    if mixed_hardware:
        chosen["IMAGEMILL_MIXED_HARDWARE"] = "1"
    if models:
        chosen["IMAGEMILL_MODELS"] = ",".join(models)
    # The settings' names are read in any case, and two by their former names: none may stand beside ours.
    replaced = {*chosen, "IMAGEMILL_ROWS", "IMAGEMILL_TASK_SLOTS"}
    env = {key: value for key, value in os.environ.items() if key.upper() not in replaced} | chosen
    # OpenMP's threads spin while they wait for each other: on a core that others use too, that made rendering
    # on a CPU nine times slower.
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return supervise(
        [
            Child(
                device,
                f"{device.name}@{host}",
                argv(f"{device.name}@{host}", concurrency, settings.log_level),
            )
            for device in devices
        ],
        env,
        stop,
        pace,
    )


def wait_for_redis(url: str, stop: Stop) -> None:
    """Return once Redis answers at `url`, or a stop is requested; say so while it does not.

    Raises LedgerError when the URL, the password or the certificate is wrong, which no waiting mends.
    """
    import redis

    from jobs.ledger.redis_client import redis_client
    from jobs.ledger.redis_errors import as_ours

    remedy = "correct IMAGEMILL_REDIS_URL (redis://:PASSWORD@HOST:6379/0)"
    try:
        client = redis_client(url)
    except ValueError as error:
        raise LedgerError(f"{connection.safe_url(url)}: not a Redis URL ({error}): {remedy}") from None
    pause = 1.0
    with client:
        while not stop:
            try:
                client.ping()
                return
            except redis.exceptions.NoPermissionError:
                return  # the user may not PING, but the password was right
            except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError) as error:
                raise LedgerError(
                    f"{connection.safe_url(url)}: Redis refuses the connection ({error}): {remedy}"
                ) from None
            except redis.exceptions.RedisError as error:
                ours = as_ours(error)
                if not isinstance(ours, LedgerUnavailable):
                    raise LedgerError(f"{connection.safe_url(url)}: {ours}") from None
                _log.warning("Redis is away, next try in %g s: %s", pause, error)
            stop.wait(pause)
            pause = min(2 * pause, 30.0)


class Child:
    """One worker process and its history; `process` is None while it is not running."""

    def __init__(self, device: gpus.Device, node: str, argv: list[str]) -> None:
        self.device = device
        self.node = node
        self.argv = argv
        self.process: subprocess.Popen[bytes] | None = None
        self.given_up = False
        self._started = 0.0
        self._start_at = 0.0
        self._deaths = 0
        self._refusals = 0

    def keep_alive(self, env: Mapping[str, str], pace: Pace) -> None:
        """Start the process when it is due."""
        now = time.monotonic()
        if self.process is not None or self.given_up or now < self._start_at:
            return
        self._started = now
        try:
            self.process = lifeline.start_tied(
                self.argv,
                env={**env, "CUDA_VISIBLE_DEVICES": self.device.cuda_visible_devices},
                pass_fds=(self.device.lock,),
            )
        except OSError as error:
            self._plan_restart(f"cannot be started ({error})", None, pace)
            return
        _log.info("%s started, pid %d", self.node, self.process.pid)

    def reap(self, stopping: bool, pace: Pace) -> None:
        """Notice the process's end; unless it was asked for, plan its restart or give the device up."""
        status = None if self.process is None else self.process.poll()
        if status is None:
            return
        self.process = None
        if stopping:
            _log.info("%s ended: %s", self.node, _describe(status))
        else:
            self._plan_restart(f"died: {_describe(status)}", status, pace)

    def _plan_restart(self, what: str, status: int | None, pace: Pace) -> None:
        now = time.monotonic()
        if now - self._started >= pace.healthy_after:
            self._deaths = self._refusals = 0
        self._refusals = self._refusals + 1 if status == REFUSED else 0
        if self._refusals == _REFUSALS:
            _log.error(
                "%s %s, %d times in a row: given up; its own lines say why", self.node, what, _REFUSALS
            )
            self.given_up = True
            self.device.give_up()
            return
        pause = min(pace.first_pause * 2.0**self._deaths, pace.longest_pause)
        self._deaths = min(self._deaths + 1, 30)
        self._start_at = now + pause
        _log.error("%s %s; starting it again in %g s", self.node, what, pause)

    def terminate(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """End the process, and all that it started, at once."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


def supervise(children: Sequence[Child], env: Mapping[str, str], stop: Stop, pace: Pace) -> int:
    """Keep the children running until a stop is requested, then take them down; returns the exit status.

    0 after an orderly stop, 1 when a child had to be killed, REFUSED when every child has refused to work
    five times in a row. One that refuses while others work is given up alone.
    """
    while not stop:
        for child in children:
            child.reap(False, pace)
            child.keep_alive(env, pace)
        if all(child.given_up for child in children):
            return REFUSED
        stop.wait(_POLL)

    stopped = time.monotonic()
    signals_by_then = stop.signals
    nodes = ", ".join(child.node for child in children if child.process is not None) or "none running"
    _log.info(
        "stopping: waiting up to %g s for worker processes (%s); a second signal kills them",
        pace.orphan_grace if stop.orphaned else pace.grace,
        nodes,
    )
    for child in children:
        child.terminate()
    killed = False
    while True:
        for child in children:
            child.reap(True, pace)
        if all(child.process is None for child in children):
            return 1 if killed else 0
        grace = pace.orphan_grace if stop.orphaned else pace.grace
        if not killed and (stop.signals > max(1, signals_by_then) or time.monotonic() - stopped > grace):
            _log.warning("killing the worker processes that are left")
            for child in children:
                child.kill()
            killed = True
        time.sleep(_POLL)


def _describe(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
