"""Keeps the worker processes of a host alive, one per claimed GPU, and takes them all down in good order."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs import lifeline
from worker.host import exit_status, gpus
from worker.host.stop import Stop
from worker.lease.beat import Beat

_log = logging.getLogger(__name__)

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
    """The same once the process that started the supervisor is gone, so that nothing waits for it."""
    after_kill: float = 10.0
    """From SIGKILL to leaving without what has not died of it: a driver that hangs holds it in the kernel."""


class Child:
    """One worker process and its history; `process` is None while it is not running."""

    def __init__(self, device: gpus.Device, node: str, argv: list[str], beat: Beat) -> None:
        """`beat`: the process's own file for health checks, which is removed when the process has ended."""
        self.device = device
        self.node = node
        self.argv = argv
        self.beat = beat
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
        self.beat.end()
        if stopping:
            _log.info("%s ended: %s", self.node, _describe(status))
        else:
            self._plan_restart(f"died: {_describe(status)}", status, pace)

    def _plan_restart(self, what: str, status: int | None, pace: Pace) -> None:
        now = time.monotonic()
        if now - self._started >= pace.healthy_after:
            self._deaths = self._refusals = 0
        self._refusals = self._refusals + 1 if status == exit_status.REFUSED else 0
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

    That of the stop after an orderly one, KILLED when a child had to be killed, REFUSED when every child has
    refused to work five times in a row. One that refuses while others work is given up alone. A child that
    even SIGKILL does not end is left behind, with its hold on its GPU.
    """
    while not stop:
        for child in children:
            child.reap(False, pace)
            child.keep_alive(env, pace)
        if all(child.given_up for child in children):
            return exit_status.REFUSED
        stop.wait(_POLL)

    stopped = time.monotonic()
    signals_by_then = stop.signals
    running = ", ".join(child.node for child in children if child.process is not None)
    if running:
        _log.info(
            "stopping: waiting up to %g s for worker processes (%s); %s",
            pace.orphan_grace if stop.orphaned else pace.grace,
            running,
            "a second signal kills them" if signals_by_then else "two signals kill them",
        )
    else:
        _log.info("stopping: no worker process runs")
    for child in children:
        child.terminate()
    killed_at: float | None = None
    while True:
        for child in children:
            child.reap(True, pace)
        left = [child for child in children if child.process is not None]
        if not left:
            return stop.status if killed_at is None else exit_status.KILLED
        now = time.monotonic()
        grace = pace.orphan_grace if stop.orphaned else pace.grace
        if killed_at is None and (stop.signals > max(1, signals_by_then) or now - stopped > grace):
            _log.warning("killing the worker processes that are left")
            for child in left:
                child.kill()
            killed_at = now
        if killed_at is not None and now - killed_at > pace.after_kill:
            _log.error(
                "%s did not end within %g s after SIGKILL: stuck in the kernel, as in a driver that hangs; "
                "leaving without waiting longer",
                ", ".join(child.node for child in left), pace.after_kill,
            )  # fmt: skip
            return exit_status.KILLED
        time.sleep(_POLL)


def _describe(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
