"""A process tied to another ends with it, however that one dies, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobs.errors import SettingsError
from jobs.lifeline import LIFELINE_FD, end_with_parent, start_tied, start_tied_program, watch
from tests.processes import runs
from tests.waiting import LONGEST

ROOT = Path(__file__).parents[2]
WaitUntil = Callable[..., None]

CHILD = """
import signal, sys, time
from jobs.lifeline import end_with_parent
{prepare}
end_with_parent({grace})
print("ready", flush=True)
time.sleep(1000)
"""


class Parent:
    """A Python process that starts tied children, and every process that it started."""

    def __init__(self, body: str, children: int, wait_until: WaitUntil) -> None:
        code = "import os, sys, time\nfrom jobs.lifeline import *\nfrom pathlib import Path\n" + body
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + "\ntime.sleep(1000)"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        self._wait_until = wait_until
        self.family: list[psutil.Process] = []
        wait_until(lambda: len(self.look()) >= children, f"{children} processes started")

    def look(self) -> list[psutil.Process]:
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        return self.family

    def wait_for_lines(self, count: int) -> None:
        assert self.process.stdout is not None
        for _ in range(count):
            assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self.look()
        self.process.kill()
        self.process.wait()

    def wait_for_the_end_of(self, family: list[psutil.Process]) -> None:
        self._wait_until(lambda: not [p for p in family if runs(p)], f"the end of {family}")


@pytest.fixture
def parent(wait_until: WaitUntil) -> Iterator[Callable[[str, int], Parent]]:
    parents: list[Parent] = []

    def start(body: str, children: int) -> Parent:
        parents.append(Parent(body, children, wait_until))
        return parents[-1]

    yield start
    for started in parents:
        for process in started.family:
            if runs(process):
                process.kill()
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()


def test_siblings_of_both_kinds_end_when_their_parent_is_killed_with_9(
    parent: Callable[[str, int], Parent],
) -> None:
    child = CHILD.format(prepare="", grace=30)
    front = parent(
        f"for _ in range(2):\n"
        f"    start_tied([sys.executable, '-c', {child!r}])\n"
        f"    start_tied_program(['sleep', '1000'])\n",
        2 + 2 * 3,
    )
    front.wait_for_lines(2)
    front.kill()
    assert len(front.family) == 8
    front.wait_for_the_end_of(front.family)


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(parent: Callable[[str, int], Parent]) -> None:
    child = CHILD.format(prepare="signal.signal(signal.SIGTERM, signal.SIG_IGN)", grace=0.3)
    front = parent(f"start_tied([sys.executable, '-c', {child!r}])", 1)
    front.wait_for_lines(1)
    front.kill()
    front.wait_for_the_end_of(front.family)


def test_a_program_that_ignores_sigterm_is_killed_and_its_leftovers_go(
    parent: Callable[[str, int], Parent], tmp_path: Path, wait_until: WaitUntil
) -> None:
    leftovers = tmp_path / "left 'over"
    (leftovers / "deep").mkdir(parents=True)
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    front = parent(
        f"start_tied_program(['sh', '-c', {stubborn!r}], grace=1, leftovers=Path({str(leftovers)!r}))", 3
    )
    front.wait_for_lines(1)
    front.kill()
    front.wait_for_the_end_of(front.family)
    wait_until(lambda: not leftovers.exists(), "the leftovers' removal")


def test_a_forked_copy_of_the_parent_does_not_keep_children_alive(
    parent: Callable[[str, int], Parent],
) -> None:
    child = CHILD.format(prepare="", grace=30)
    front = parent(
        f"tied = start_tied([sys.executable, '-c', {child!r}])\nif os.fork() == 0: time.sleep(1000)\n", 2
    )
    front.wait_for_lines(1)
    tied = [p for p in front.look() if os.getsid(p.pid) == p.pid]
    assert len(tied) == 1
    front.kill()
    front.wait_for_the_end_of(tied)
    assert [p for p in front.family if runs(p)], "the copy itself lives on: it shares no pipe"


def test_a_terminals_ctrl_c_does_not_reach_tied_children() -> None:
    for start in (start_tied, start_tied_program):
        child = start(["sleep", "1000"])
        try:
            assert os.getsid(child.pid) == child.pid != os.getsid(0)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def test_the_shell_hands_on_sigterm_and_the_programs_exit_status(wait_until: WaitUntil) -> None:
    assert start_tied_program(["sh", "-c", "exit 7"]).wait(LONGEST) == 7
    assert start_tied_program(["sh", "-c", "kill -KILL $$"]).wait(LONGEST) == 128 + signal.SIGKILL

    orderly = start_tied_program(
        ["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"], stdout=subprocess.PIPE
    )
    assert orderly.stdout is not None
    with orderly.stdout as lines:
        assert lines.readline() == b"ready\n"
    group = psutil.Process(orderly.pid).children(recursive=True)
    orderly.terminate()
    assert orderly.wait(LONGEST) == 5
    wait_until(lambda: not [p for p in group if runs(p)], "the watcher's end")


def test_leftovers_stay_while_the_parent_lives(tmp_path: Path) -> None:
    start_tied_program(["true"], leftovers=tmp_path).wait(LONGEST)
    assert tmp_path.is_dir()


def test_a_program_inherits_no_lifeline_but_its_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIFELINE_FD, "9")
    shell = start_tied_program(
        [
            sys.executable,
            "-c",
            "import os; print(os.environ.get('LIFELINE_FD'), sorted(os.listdir('/dev/fd'))[:4])",
        ],
        stdout=subprocess.PIPE,
    )
    # 0, 1, 2, and the descriptor that lists them.
    assert shell.communicate(timeout=LONGEST)[0] == b"None ['0', '1', '2', '3']\n"


def test_what_is_no_pipe_is_refused_as_a_lifeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(SettingsError, match="is not a pipe"):
        watch(file.fileno(), lambda: None)
    with pytest.raises(SettingsError, match="12345 is not a pipe"):
        watch(12345, lambda: None)
    monkeypatch.setenv(LIFELINE_FD, "stdin")
    with pytest.raises(SettingsError, match="LIFELINE_FD = 'stdin'"):
        end_with_parent()


def test_a_watcher_is_reported_once_the_other_end_is_closed(wait_until: WaitUntil) -> None:
    read_end, write_end = os.pipe()
    found: list[bool] = []
    watch(read_end, lambda: found.append(True))
    assert not found
    os.close(write_end)
    wait_until(lambda: found == [True], "the call of on_gone")
    os.close(read_end)
