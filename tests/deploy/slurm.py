"""A stand-in for Slurm: it runs the tasks of an array here, and starts those again that are requeued."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.processes import kill_families

JOB = 4200
CPUS = 4
# Notes srun's own options, and the step's process as slurmstepd does, and becomes the step.
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do
    echo "$1" >> "$CLUSTER/options-$SLURM_ARRAY_TASK_ID"
    shift
done
echo $$ > "$CLUSTER/step-$SLURM_ARRAY_TASK_ID"
exec "$@"
"""
SCONTROL = """#!/bin/sh
[ "$1" = requeue ] || exit 1
touch "$CLUSTER/requeued-$2"
"""


def options(script: Path) -> dict[str, str]:
    """The options in a script's #SBATCH lines, which end at its first command, as sbatch reads them."""
    found = {}
    for line in script.read_text().splitlines():
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            for word in shlex.split(line.removeprefix("#SBATCH"), comments=True):
                name, _, value = word.removeprefix("--").partition("=")
                assert word.startswith("--"), line
                found[name] = value
    return found


def make_programs(folder: Path, texts: Mapping[str, str]) -> None:
    """Programs for the PATH, in a new folder."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


class Slurm:
    """The tasks of one array: bash processes in sessions of their own, each with the variables of Slurm."""

    def __init__(self, folder: Path, script: Path, arguments: list[str], env: Mapping[str, str]) -> None:
        self._folder, self._command, self._env = folder, ["bash", str(script), *arguments], env
        self.restarts: dict[int, int] = {}
        self.statuses: dict[int, int] = {}
        """Task -> the exit status that it ended with for good."""
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        make_programs(folder / "cluster", {"srun": SRUN, "scontrol": SCONTROL})
        first, _, last = options(script)["array"].partition("-")
        for task in range(int(first), int(last) + 1):
            self.restarts[task] = 0
            self._start(task)

    def _start(self, task: int) -> None:
        cluster = self._folder / "cluster"
        env = {
            **self._env,
            "PATH": f"{cluster}:{self._env['PATH']}",
            "CLUSTER": str(cluster),
            # As in Slurm, one of the tasks has the number of the array.
            "SLURM_JOB_ID": str(JOB + task),
            "SLURM_ARRAY_JOB_ID": str(JOB),
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_CPUS_PER_TASK": str(CPUS),
        }
        if self.restarts[task]:
            env["SLURM_RESTART_COUNT"] = str(self.restarts[task])
        with self.log_of(task).open("ab") as log:
            self._running[task] = subprocess.Popen(
                self._command, cwd=self._folder, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def log_of(self, task: int) -> Path:
        return self._folder / f"{task}.log"

    def step(self, task: int) -> psutil.Process | None:
        """What runs under srun in a task: the supervisor of a worker."""
        file = self._folder / "cluster" / f"step-{task}"
        try:
            return psutil.Process(int(file.read_text()))
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None

    def options_of(self, task: int) -> set[str]:
        """What the steps of a task asked srun for."""
        return {*(self._folder / "cluster" / f"options-{task}").read_text().splitlines()}

    def signal_steps_of(self, task: int) -> None:
        """SIGTERM to every process of the task's step, as `--signal=TERM@120` sends it."""
        step = self.step(task)
        assert step is not None
        for process in (step, *step.children(recursive=True)):
            process.send_signal(signal.SIGTERM)

    def look(self) -> bool:
        """Starts requeued tasks again; returns whether all have ended."""
        for task, process in list(self._running.items()):
            requeued = self._folder / "cluster" / f"requeued-{JOB}_{task}"
            if requeued.exists():
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                requeued.unlink()
                self.restarts[task] += 1
                self._start(task)
            elif process.poll() is not None:
                self.statuses[task] = process.returncode
                del self._running[task]
        return not self._running

    def stop(self) -> None:
        """Ends everything, whatever state it is in."""
        kill_families(self._running.values())
