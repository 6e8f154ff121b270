"""Child processes that end when this process does, however it dies.

The parent holds the write end of one pipe for its whole life and never writes to it; each child holds the
read end. End-of-file there means that the parent is gone, even by kill -9. This works on Linux and macOS,
needs no polling and cannot be misled by a reused pid.

A child of `start_tied` must watch the pipe itself (`end_with_parent` or `watch`); `start_tied_program` does
that for a program that cannot. Both start the child in a session of its own, so that Ctrl-C in a terminal
reaches only the foreground process.
"""

from __future__ import annotations

import functools
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from jobs.errors import SettingsError

LIFELINE_FD = "LIFELINE_FD"
"""The environment variable in which `start_tied` gives a child its end of the pipe."""

# Runs "$@" and ends it when standard input does. $1: seconds from SIGTERM to SIGKILL; $2: a folder to remove
# when the parent is gone (empty: none). `read` is the shell's own, so no process outlives the watcher.
_WRAPPER = """
grace=$1; leftovers=$2; shift 2
program= stopped= orphaned=
stop() { stopped=yes; if [ -n "$program" ]; then kill -TERM "$program" 2>/dev/null; fi; }
trap stop TERM INT HUP
trap 'orphaned=yes; stop' USR1
exec 3<&0 </dev/null
"$@" 3<&- &
program=$!
if [ -n "$stopped" ]; then stop; fi
(
    trap - TERM INT HUP USR1
    while read -r nothing <&3; do :; done
    kill -USR1 $$ 2>/dev/null
    kill -TERM "$program" 2>/dev/null
    while [ "$grace" -gt 0 ] && kill -0 "$program" 2>/dev/null; do sleep 1; grace=$((grace - 1)); done
    kill -KILL "$program" 2>/dev/null
) &
watcher=$!
exec 3<&-
# A trapped signal interrupts `wait`; the program is reaped only once it no longer answers to kill -0.
while wait "$program"; status=$?; kill -0 "$program" 2>/dev/null; do :; done
kill -KILL "$watcher" 2>/dev/null
if [ -n "$orphaned" ] && [ -n "$leftovers" ]; then rm -rf -- "$leftovers"; fi
exit "$status"
"""


@functools.cache
def _pipe() -> tuple[int, int]:
    """This process's pipe: children get the read end; the write end stays here. Neither is inherited."""
    return os.pipe()


def _forget_pipe() -> None:
    """Closes the pipe in a forked copy of this process, which must not keep the children alive."""
    if _pipe.cache_info().currsize:
        for end in _pipe():
            os.close(end)
        _pipe.cache_clear()


os.register_at_fork(after_in_child=_forget_pipe)


def start_tied(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Iterable[int] = (),
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that watches the pipe itself; the variable LIFELINE_FD has the pipe's number.

    `env` is the whole environment (None: this process's own). Raises OSError if it cannot be started.
    """
    fd = _pipe()[0]
    return subprocess.Popen(
        argv,
        env={**(os.environ if env is None else env), LIFELINE_FD: str(fd)},
        pass_fds=(fd, *pass_fds),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        start_new_session=True,
    )


def start_tied_program(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    cwd: Path | None = None,
    grace: int = 10,
    leftovers: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that cannot watch a pipe, under a shell that does.

    The returned process is the shell. It passes SIGTERM on, and ends when the program does, with the same
    exit status (128 + n for signal n). When this process dies, the program gets SIGTERM, `grace` seconds
    later SIGKILL, and then the folder `leftovers` is removed. The shell leads a process group that holds only
    the program and the shell's watcher.
    """
    environment = dict(os.environ if env is None else env)
    environment.pop(LIFELINE_FD, None)
    return subprocess.Popen(
        ["/bin/sh", "-c", _WRAPPER, "lifeline", str(grace), "" if leftovers is None else leftovers, *argv],
        env=environment,
        stdin=_pipe()[0],
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        start_new_session=True,
    )


def watch(fd: int, on_gone: Callable[[], None]) -> threading.Thread:
    """Call `on_gone` in a daemon thread once the process at the other end of the pipe `fd` is gone.

    Raises SettingsError if `fd` is not a pipe that this process was given.
    """
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
    except (OSError, OverflowError):
        is_pipe = False
    if not is_pipe:
        raise SettingsError(
            f"lifeline: file descriptor {fd} is not a pipe: it is set by the process that starts this one, "
            f"so leave --lifeline-fd and {LIFELINE_FD} alone"
        )

    def wait() -> None:
        while os.read(fd, 512):
            pass
        on_gone()

    thread = threading.Thread(target=wait, name="lifeline", daemon=True)
    thread.start()
    return thread


def end_with_parent(grace: float = 10.0) -> None:
    """Tie this process to the one that started it by `start_tied`; without LIFELINE_FD, do nothing.

    When the parent is gone this process gets SIGTERM, and SIGKILL after `grace` seconds.
    """
    number = os.environ.pop(LIFELINE_FD, None)
    if number is None:
        return
    if not number.isdecimal():
        raise SettingsError(f"{LIFELINE_FD} = {number!r}: not a file descriptor's number; unset it")

    def end() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    watch(int(number), end)
