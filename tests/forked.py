"""A Python that has imported what takes long, and forks for each program of Python that it is asked to start.

    python -P tests/forked.py SOCKET MODULE …

The copy becomes what it would be had it been started by an exec: arguments, folder, environment, files and
signals. The modules alone are there before. What it starts by `subprocess` becomes a copy too where that is a
program of this Python: so `imagemill-worker` forks its Celery process. Only the standard library is imported
here, for whatever is imported here is in each copy.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import json
import logging
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

MESSAGE = 1 << 20
"""The most bytes that a program's arguments and environment take."""
_POPEN = next(kind for kind in subprocess.Popen.__mro__ if kind.__module__ == "subprocess")
"""In a copy, `subprocess.Popen` is `ForkingPopen`."""
_PARAMETERS = tuple(signature(_POPEN._execute_child).parameters)[1:]
_READ_AT_ONCE = ("PYTHON", "OMP_NUM", "OPENBLAS", "MKL_", "LD_")
"""How the names of variables begin that a library, or Python itself, reads before any code of ours runs."""
_READ_BY_HUB = ("HF_",)
"""The same of those that huggingface_hub reads when it is imported."""
HUB = ("datasets", "diffusers", "huggingface_hub", "transformers")
"""What imports it."""
_READ_HERE = ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
"""Those that a copy still obeys."""


class Forkable:
    """Which programs this Python can become."""

    def __init__(self, environment: Mapping[str, str], *, hub: bool) -> None:
        """`environment`: where it imported its libraries; `hub`: whether huggingface_hub is one of them."""
        self._read_by_libraries = _READ_AT_ONCE + (_READ_BY_HUB if hub else ())
        self._fixed = self._read(environment)

    def __call__(self, told: Mapping[str, Any]) -> bool:
        """Whether a copy can do what `subprocess.Popen` was `told` as a process of its own would."""
        plain = not told["shell"] and told["close_fds"] and told["preexec_fn"] is None
        environment = os.environ if told["env"] is None else told["env"]
        files = (told["p2cread"], told["c2pwrite"], told["errwrite"])
        return (
            plain
            and isinstance(told["args"], list | tuple)
            and told["executable"] in (None, told["args"][0])
            and told["umask"] == -1
            and (told["gid"], told["gids"], told["uid"]) == (None, None, None)
            and told["process_group"] in (None, -1)
            and _program(told["args"]) is not None
            and self._read({os.fsdecode(name): value for name, value in environment.items()}) == self._fixed
            and not any(os.isatty(number if file == -1 else file) for number, file in enumerate(files))
        )

    def _read(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {
            name: value
            for name, value in environment.items()
            if name.startswith(self._read_by_libraries) and name not in _READ_HERE
        }


def _program(args: Sequence[Any]) -> list[str] | None:
    """What Python is given, when it is this Python that is started: a module, code, or a script."""
    words = [os.fsdecode(word) for word in args]
    if words[0] == sys.executable:
        known = len(words) > 2 and words[1] in ("-m", "-c")
        return words[1:] if known or (len(words) > 1 and not words[1].startswith("-")) else None
    script, programs = Path(words[0]), Path(sys.executable).parent
    if script.parent != programs or not script.is_file():
        return None
    with script.open("rb") as file:
        first = os.fsdecode(file.readline()).strip()
    # A virtual environment may have another name than the one under which it was made.
    ours = first.startswith("#!/") and Path(first[2:]).parent.resolve() == programs.resolve()
    return words if ours else None


def asked_of(told: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """A program to start, as JSON can hold it, and the files that it has under its `numbers`."""
    files = [
        number if file == -1 else file
        for number, file in enumerate((told["p2cread"], told["c2pwrite"], told["errwrite"]))
    ]
    environment = os.environ if told["env"] is None else told["env"]
    asked = {
        "program": _program(told["args"]),
        "cwd": None if told["cwd"] is None else os.fsdecode(told["cwd"]),
        "env": {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()},
        "session": bool(told["start_new_session"]),
        "group": told["process_group"],
        "numbers": [0, 1, 2, *told["pass_fds"]],
    }
    return asked, [*files, *told["pass_fds"]]


class _Origin:
    """What each copy begins with, whatever the process that it is forked from has done since."""

    def __init__(self) -> None:
        own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        self.forkable = Forkable(os.environ, hub=any(name in sys.modules for name in HUB))
        self.modules = dict(sys.modules)
        self.path = [path for path in sys.path if path not in own]
        self.meta_path = list(sys.meta_path)
        self.filters = list(warnings.filters)
        self.handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self.loggers = {
            name: (logger.level, list(logger.handlers), logger.propagate, logger.disabled)
            for name, logger in self._named_loggers().items()
        }
        self.root = (logging.root.level, list(logging.root.handlers))
        self.kept: list[object] = []
        """What a copy has no use for. Once collected, it would close files whose numbers are others' now."""

    @staticmethod
    def _named_loggers() -> dict[str, logging.Logger]:
        loggers = logging.root.manager.loggerDict.items()
        return {name: logger for name, logger in loggers if isinstance(logger, logging.Logger)}

    def restore(self) -> None:
        """Forgets what was imported and set up since."""
        for name in [name for name in sys.modules if name not in self.modules]:
            self.kept.append(sys.modules.pop(name))
        sys.modules.update(self.modules)
        sys.meta_path[:] = self.meta_path
        sys.path_importer_cache.clear()
        atexit._clear()
        # Those that the libraries' imports registered.
        atexit.register(logging.shutdown)
        if (children := sys.modules.get("multiprocessing.util")) is not None:
            atexit.register(children._exit_function)
        logging.captureWarnings(False)
        warnings.filters[:] = self.filters
        logging.root.level, logging.root.handlers[:] = self.root[0], self.root[1]
        for name, logger in self._named_loggers().items():
            state = self.loggers.get(name, (logging.NOTSET, [], True, False))
            logger.level, logger.handlers[:], logger.propagate, logger.disabled = state
        logging.root.manager._clear_cache()
        signal.set_wakeup_fd(-1)
        for number, handler in self.handlers.items():
            # What was ignored stays so, as it does by an exec.
            if number in (signal.SIGKILL, signal.SIGSTOP) or signal.getsignal(number) == signal.SIG_IGN:
                continue
            if handler is None or handler == signal.SIG_IGN:  # here it was ignored from the start
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
            else:
                signal.signal(number, handler)


_origin: _Origin


class ForkingPopen(subprocess.Popen[Any]):
    """In a copy: starts a program of this Python by a fork, and any other as ever."""

    def _execute_child(self, *given: Any) -> None:
        told = dict(zip(_PARAMETERS, given, strict=True))
        # The threads of obstore do not live on in a copy, and both would hang.
        if "obstore" in sys.modules or not _origin.forkable(told):
            super()._execute_child(*given)
            return
        asked, files = asked_of(told)
        # A fork runs what closes files in a child, as `jobs.lifeline` asks for; an exec would not.
        held = [os.dup(file) for file in files]
        self.pid = os.fork()
        if self.pid == 0:
            _become(asked, held)
        for file in held:
            os.close(file)
        self._child_created = True
        self._close_pipe_fds(*(told[name] for name in _PARAMETERS if name.endswith(("read", "write"))))


def _become(asked: Mapping[str, Any], files: Sequence[int]) -> NoReturn:
    """Makes this copy what it would be had it been started so, runs it and ends."""
    status = 255
    try:
        gc.collect()
        gc.freeze()
        _origin.restore()
        if asked["session"]:
            os.setsid()
        if asked["group"] not in (None, -1):
            os.setpgid(0, asked["group"])
        _take(files, asked["numbers"])
        os.environ.clear()
        os.environ.update(asked["env"])
        if asked["cwd"] is not None:
            os.chdir(asked["cwd"])
        _open_streams(bool(asked["env"].get("PYTHONUNBUFFERED")))
        random.seed()
        subprocess.Popen = ForkingPopen  # type: ignore[misc]
        status = _run(asked["program"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _take(files: Sequence[int], numbers: Sequence[int]) -> None:
    """The files have these numbers from now on, and no other file is open."""
    import fcntl

    above = max(*files, *numbers) + 1
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files]
    for file, number in zip(moved, numbers, strict=True):
        os.dup2(file, number, inheritable=True)
    kept = {*numbers}
    for entry in list(Path("/dev/fd").iterdir()):
        if int(entry.name) not in kept:
            with suppress(OSError):  # that of the listing itself is closed
                os.close(int(entry.name))


def _open_streams(unbuffered: bool) -> None:
    """Standard input, output and error as Python opens them at its start."""
    _origin.kept += [sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
        if number == 0:
            stream = io.TextIOWrapper(io.BufferedReader(raw), before.encoding, before.errors)
        elif unbuffered:
            stream = io.TextIOWrapper(raw, before.encoding, before.errors, write_through=True)  # type: ignore[type-var]
        else:
            stream = io.TextIOWrapper(
                io.BufferedWriter(raw), before.encoding, before.errors, line_buffering=name == "stderr"
            )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _run(program: list[str]) -> int:
    """Runs a program as `python PROGRAM` does; returns its exit status."""
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*map(os.path.abspath, added), *_origin.path]
    for folder in added:
        if Path(folder, "sitecustomize.py").is_file():
            sys.modules.pop("sitecustomize", None)
            importlib.import_module("sitecustomize")
            break
    status = 0
    try:
        _run_main(program)
    except SystemExit as ended:
        if isinstance(ended.code, int):
            status = ended.code & 0xFF
        elif ended.code is not None:
            print(ended.code, file=sys.stderr)  # noqa: T201
            status = 1
    except KeyboardInterrupt:
        traceback.print_exc()
        status = -signal.SIGINT
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    return _end(status)


def _run_main(program: list[str]) -> None:
    option, *rest = program
    if option == "-m":
        sys.argv = list(rest)
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif option == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = list(program)
        sys.path.insert(0, str(Path(option).resolve().parent))
        runpy.run_path(option, run_name="__main__")


def _end(status: int) -> int:
    """What Python does when a program has run."""
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        status = 120
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _serve(server: socket.socket) -> None:
    """Forks for each message; each copy is the child of the one that asked, who says so to the kernel."""
    while True:
        message, files, _, _ = socket.recv_fds(server, MESSAGE, 253)
        if not message:
            return
        back, front = os.pipe()
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                _become(json.loads(message), files)
            os.write(front, str(pid).encode())
            os._exit(0)
        os.close(front)
        os.waitpid(between, 0)
        pid_of_copy = os.read(back, 32)
        for file in (back, *files):
            os.close(file)
        server.send(pid_of_copy)


def adopt(adopting: bool) -> None:
    """Whether processes whose parent ends become children of this one, if they descend from it."""
    if ctypes.CDLL(None).prctl(36, int(adopting), 0, 0, 0) != 0:  # PR_SET_CHILD_SUBREAPER
        raise OSError("prctl")


if __name__ == "__main__":
    for _module in sys.argv[2:]:
        importlib.import_module(_module)
    sys.modules[Path(__file__).stem] = sys.modules["__main__"]
    gc.collect()
    gc.freeze()  # else a collection in a copy would copy all that was imported
    _origin = _Origin()
    _serve(socket.socket(fileno=int(sys.argv[1])))
