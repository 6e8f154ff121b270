"""A copy of a Python with its imports behaves as a process does; where it could not, a process is started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tests.waiting import LONGEST
from tests.warm_python import BIN, WarmPython

Call = Callable[..., tuple[int, str, str]]
MARK = "import sys; print('colorsys' in sys.modules)"
"""Whether it is a copy: the module is in no Python at its start."""
LATE = """
import threading, time
threading.Thread(target=lambda: [time.sleep(0.1), print('late')]).start()
"""
STARTS = """
import logging, os, signal, subprocess, sys
logging.basicConfig()
signal.signal(signal.SIGINT, lambda *_: None)
told = subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True).stdout.split("\\n")
print(told[0], told[1] == f"{os.getpid()} [] True")
print(subprocess.run(["sh", "-c", "echo shell; exit 3"], capture_output=True, text=True))
"""


@pytest.fixture(scope="module")
def warm() -> WarmPython:
    return WarmPython("colorsys", "click", "huggingface_hub")


@pytest.fixture(params=["copied", "started"])
def call(request: pytest.FixtureRequest, warm: WarmPython, tmp_path: Path) -> Call:
    """Runs `python ARGUMENTS`, as a copy and as a process of its own; what it came to must be the same."""

    def run(*words: str, environment: Mapping[str, str] = os.environ) -> tuple[int, str, str]:
        command = [sys.executable, *words]
        if request.param == "copied":
            done = warm.call(command, cwd=tmp_path, env=environment, timeout=LONGEST)
        else:
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
                stdin=subprocess.DEVNULL, timeout=LONGEST,
            )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize(
    ("code", "status", "out"),
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("raise SystemExit('no')", 1, ""),
        ("print('half', end=''); 1 / 0", 1, "half"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM, ""),
        ("raise KeyboardInterrupt", -signal.SIGINT, ""),
        ("import atexit; atexit.register(print, 'bye')", 0, "bye\n"),
        (LATE, 0, "late\n"),
        ("import sys; print(sys.argv, sys.stdin.read(), __name__)", 0, "['-c']  __main__\n"),
        ("import os; print(sorted(set(os.listdir('/dev/fd')) - {'3'}))", 0, "['0', '1', '2']\n"),
        ("import os; print(os.environ['OWN'], sorted(os.environ) == sorted({**os.environ}))", 0, "x True\n"),
        ("import signal; print(signal.getsignal(15) == signal.SIG_DFL)", 0, "True\n"),
        ("import logging; print(logging.root.handlers)", 0, "[]\n"),
    ],
)  # fmt: skip
def test_code_ends_and_prints_as_it_does_in_a_process(call: Call, code: str, status: int, out: str) -> None:
    found, printed, _err = call("-c", code, environment={**os.environ, "OWN": "x"})
    assert (found, printed) == (status, out)


def test_a_script_and_a_module_find_their_neighbours_and_their_arguments(call: Call, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "neighbour.py").write_text("word = 'hello'")
    told = "import sys, neighbour; print(neighbour.word, sys.argv[1:], __name__)"
    (tmp_path / "folder" / "script.py").write_text(told)
    (tmp_path / "neighbour.py").write_text("word = 'here'")
    (tmp_path / "module.py").write_text(told)
    assert call("folder/script.py", "a", "b") == (0, "hello ['a', 'b'] __main__\n", "")
    assert call("-m", "module", "a") == (0, "here ['a'] __main__\n", "")
    assert call("-m", "nothing")[0] == 1


def test_a_path_given_by_the_environment_comes_first_with_what_python_runs_at_its_start(
    call: Call, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.customised = 'yes'")
    given = {**os.environ, "PYTHONPATH": str(tmp_path)}
    code = "import sys; print(customised, sys.path[1])"
    assert call("-c", code, environment=given) == (0, f"yes {tmp_path}\n", "")


@pytest.fixture
def in_the_background() -> Iterator[None]:
    """What starts meanwhile ignores Ctrl-C, as do the tests after `make test &` in a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_the_background")
def test_what_a_copy_in_the_background_starts_is_a_copy_and_its_own_child(tmp_path: Path) -> None:
    test_what_a_copy_starts_is_a_copy_and_its_own_child(WarmPython("colorsys"), tmp_path)


def test_what_a_copy_starts_is_a_copy_and_its_own_child(warm: WarmPython, tmp_path: Path) -> None:
    child = (
        f"{MARK}; import os, logging, signal, jobs.lifeline\n"
        "print(os.getppid(), logging.root.handlers, signal.getsignal(2) == signal.default_int_handler)"
    )
    done = warm.run(STARTS, child, cwd=tmp_path, env=os.environ, timeout=LONGEST)
    first, second = done.stdout.splitlines()
    assert first == "True True"
    assert "returncode=3, stdout='shell\\n'" in second


def test_a_copy_is_a_child_that_is_watched_and_killed_as_any(warm: WarmPython, tmp_path: Path) -> None:
    read, write = os.pipe()
    code = f"import os, time; os.write({write}, b'{'x' * 3}'); print('up', flush=True); time.sleep(1000)"
    process = warm.popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True, pass_fds=(write,),
        start_new_session=True,
    )  # fmt: skip
    os.close(write)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert os.read(read, 9) == b"xxx"
    assert process.poll() is None
    assert psutil.Process(process.pid).ppid() == os.getpid()
    assert os.getsid(process.pid) == process.pid
    process.send_signal(signal.SIGKILL)
    assert process.wait(LONGEST) == -signal.SIGKILL
    assert os.read(read, 9) == b"", "no other process has the file"
    os.close(read)
    process.stdout.close()


@pytest.mark.parametrize(
    "variable", [{"PYTHONHASHSEED": "1"}, {"HF_HOME": "/nowhere"}, {"OMP_NUM_THREADS": "3"}]
)
def test_what_libraries_read_when_they_are_imported_makes_it_a_process(
    warm: WarmPython, tmp_path: Path, variable: dict[str, str]
) -> None:
    assert warm.run(MARK, cwd=tmp_path, env=os.environ, timeout=LONGEST).stdout == "True\n"
    found = warm.run(MARK, cwd=tmp_path, env=os.environ | variable, timeout=LONGEST)
    assert found.stdout == "False\n"


def test_a_command_says_the_same_as_a_copy_and_as_a_process(warm: WarmPython, tmp_path: Path) -> None:
    for words in (["--help"], ["plan", "nothing.yaml"], ["nothing"]):
        command = [BIN / "imagemill", *words]
        copied = warm.call(command, cwd=tmp_path, env=os.environ, timeout=LONGEST)
        started = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (copied.returncode, copied.stdout) == (started.returncode, started.stdout)
        assert copied.stderr == started.stderr
