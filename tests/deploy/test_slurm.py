"""deploy/slurm.sh renders a manifest on a stand-in for Slurm, though tasks are drained in the middle.

On a real slurmctld and slurmd it was tried by hand: docs/deploy.md.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.deploy.slurm import CPUS, SCONTROL, SRUN, Slurm, make_programs, options
from tests.processes import kill_families
from tests.waiting import LONGEST, WaitUntil
from tests.warm_python import BIN

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm.sh"
IMAGES, SHARD = 240, 8


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Slurm]:
    """Four tasks that render 240 images into a folder which they share."""
    manifest = {
        "name": "cats",
        "model": "instant",
        "output": str(tmp_path / "out"),
        "shard_size": SHARD,
        "settings": {"height": 64, "width": 64, "num_inference_steps": 4},
        "prompts": [f"picture {number}" for number in range(IMAGES)],
    }
    (tmp_path / "cats.yaml").write_text(json.dumps(manifest))
    settings = {"TORCH_THREADS": 1, "MIN_FREE_DISK": 0, "INSTANT_SECONDS": 0.7, "LEASE": 60}
    env = {
        **{name: value for name, value in os.environ.items() if name != "IMAGEMILL_REDIS_URL"},
        **{f"IMAGEMILL_{name}": str(value) for name, value in settings.items()},
        "IMAGEMILL_RUNTIME_DIR": str(tmp_path / "runtime"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(SCRIPT.parents[1]),
        "REDIS_HOST": "127.0.0.1",
        "WORKER_OPTIONS": "--gpus none --concurrency 1",
        "IDLE_SECONDS": "3",
    }
    started = Slurm(tmp_path, SCRIPT, ["cats.yaml"], env)
    yield started
    started.stop()


def committed(folder: Path) -> int:
    return len(list((folder / "out").glob("[0-9]*/metadata.jsonl")))


def test_four_tasks_finish_a_job_though_a_worker_and_the_leader_are_drained(
    cluster: Slurm, tmp_path: Path, wait_until: WaitUntil
) -> None:
    run = tmp_path / "imagemill-4200"

    def progress() -> object:
        cluster.look()
        return committed(tmp_path), [cluster.log_of(task).stat().st_size for task in cluster.restarts]

    def rendering() -> set[int]:
        logs = {task: cluster.log_of(task).read_text() for task in cluster.restarts}
        return {task for task, log in logs.items() if re.search(r"committed: \d+ rendered", log)}

    wait_until((run / "leader").exists, "a task leads", progress=progress)
    wait_until((run / "leader").read_text, "its number is written")
    leader = int((run / "leader").read_text())
    wait_until(lambda: {leader} < rendering(), "the leader and others render", progress=progress)
    follower = min(rendering() - {leader})
    assert stat.S_IMODE((run / "address").stat().st_mode) == 0o600
    cluster.signal_steps_of(follower)
    cluster.signal_steps_of(leader)
    assert committed(tmp_path) < IMAGES // SHARD, "the job is under way"
    drained = {task: int(task in (leader, follower)) for task in range(4)}
    wait_until(lambda: cluster.restarts == drained, "these two are requeued, and no other", progress=progress)
    for task in (follower, leader):
        assert "the worker left with status 143" in cluster.log_of(task).read_text()
    wait_until(cluster.look, "all tasks end", progress=progress)
    assert cluster.statuses == dict.fromkeys(range(4), 0)
    lines = [line for file in tmp_path.glob("out/[0-9]*/metadata.jsonl") for line in file.open()]
    assert len(lines) == len({json.loads(line)["image_id"] for line in lines}) == IMAGES
    assert (tmp_path / "out" / "job.json").is_file()
    assert cluster.options_of(follower) == {"--ntasks=1", f"--cpus-per-task={CPUS}"}, "else a step has one"
    assert not list(run.glob("address*")), "no task that comes later asks a Redis that is gone"


def test_its_options_are_those_of_sbatch() -> None:
    found = options(SCRIPT)
    assert found["signal"] == "TERM@120", "to the steps, not to the shell, two minutes before the time limit"
    assert "requeue" in found
    assert re.fullmatch(r"\d+-\d+", found["array"])
    assert re.fullmatch(r"\d\d:\d\d:\d\d", found["time"])
    known = {"job-name", "array", "ntasks", "gpus", "cpus-per-task", "mem", "time", "output", "open-mode"}
    assert found.keys() == known | {"signal", "requeue"}


def test_it_asks_for_a_manifest_and_sets_no_variable_that_the_settings_refuse(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "1"}
    done = subprocess.run(
        ["bash", SCRIPT], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "name a manifest" in done.stdout
    assigned = set(re.findall(r"^\s*(?:export )?(IMAGEMILL_\w+)=", SCRIPT.read_text(), re.MULTILINE))
    assert assigned == {"IMAGEMILL_REDIS_URL"}


def test_the_folder_of_another_array_is_refused_instead_of_taken_for_this_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "over").write_text("0\n")
    said = {}
    for array in ("7", "8"):
        env = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "SLURM_JOB_ID": array,
            "RUN_FOLDER": str(tmp_path / "run"),
        }
        done = subprocess.run(
            ["bash", SCRIPT, "cats.yaml"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        said[array] = (done.returncode, done.stdout.partition(": ")[2])
    refused = f"RUN_FOLDER={tmp_path / 'run'} is that of array 7: name another folder\n"
    assert said == {"7": (0, ""), "8": (2, refused)}


def test_without_the_program_on_the_path_a_task_ends_at_once(tmp_path: Path) -> None:
    """It began a Redis for each of ten ports, and waited five minutes for each."""
    env = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "1"}
    done = subprocess.run(
        ["bash", SCRIPT, "cats.yaml"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "imagemill is not on the PATH" in done.stdout
    assert not list(tmp_path.glob("imagemill-*"))


@dataclass
class Tasks:
    """Tasks of an array whose programs are stand-ins: a worker that ends as it is told to."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def programs(self, worker: int, workers: str = "", submit: int = 0) -> None:
        """`worker`, `submit`: exit statuses of imagemill-worker and `imagemill submit`. `workers`: what
        `status --json` shows of others."""
        status = (
            f'if [ "$1" = submit ]; then exit {submit}; fi\n'
            f"if [ \"$2\" = --json ]; then echo '{workers}'; fi\n"
        )
        texts = {
            "srun": SRUN,
            "scontrol": SCONTROL,
            "imagemill": f"#!/bin/sh\n{status}",
            "imagemill-worker": f"#!/bin/sh\nexit {worker}\n",
            "redis-server": "#!/bin/sh\nexec sleep 1000\n",
        }
        make_programs(self.folder / "cluster", texts)

    def start(self, number: int, **variables: str) -> subprocess.Popen[bytes]:
        cluster = self.folder / "cluster"
        env = {
            "PATH": f"{cluster}:/usr/bin:/bin",
            "CLUSTER": str(cluster),
            "SLURM_JOB_ID": str(number + 7),
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": str(number),
            **variables,
        }
        task = subprocess.Popen(["bash", SCRIPT, "cats.yaml"], cwd=self.folder, env=env)
        self.started.append(task)
        return task


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    array = Tasks(tmp_path)
    yield array
    kill_families(array.started)


@pytest.mark.parametrize("status", [1, 2, 3])
def test_tasks_that_start_after_the_leader_left_for_good_wait_for_no_redis(tasks: Tasks, status: int) -> None:
    tasks.programs(status)
    assert [tasks.start(number).wait(LONGEST) for number in (0, 1)] == [status, status]


@pytest.mark.parametrize("status", [75, 143])
def test_a_task_whose_worker_found_no_redis_or_had_to_leave_is_put_back_so_often(
    tasks: Tasks, wait_until: WaitUntil, status: int
) -> None:
    tasks.programs(status)
    requeued = tasks.folder / "cluster" / "requeued-7_0"
    first = tasks.start(0, SLURM_RESTART_COUNT="99")
    wait_until(requeued.exists, "it is put back")
    requeued.unlink()
    kill_families([first])
    again = tasks.start(0, SLURM_RESTART_COUNT="100")
    assert (again.wait(LONGEST), requeued.exists()) == (status, False)


@pytest.mark.parametrize("given", [{}, {"IMAGEMILL_REDIS_URL": "redis://given:1/0"}])
def test_every_task_ends_with_the_status_of_a_submission_that_is_refused(
    tasks: Tasks, given: dict[str, str]
) -> None:
    tasks.programs(0, submit=2)
    assert [tasks.start(number, **given).wait(LONGEST) for number in (0, 1)] == [2, 2]


def test_a_leader_that_waits_for_others_is_put_back_at_its_time_limit(
    tasks: Tasks, wait_until: WaitUntil
) -> None:
    """Else its Redis would be gone for good, and the others would come back and wait for it."""
    tasks.programs(3, '"gpu0@there": {')
    tasks.start(0)
    noted = tasks.folder / "cluster" / "step-0"
    wait_until(
        lambda: noted.is_file() and "grep" in _command_line(int(noted.read_text() or 0)),
        "it waits for others",
    )
    os.kill(int(noted.read_text()), signal.SIGTERM)
    wait_until((tasks.folder / "cluster" / "requeued-7_0").exists, "it is put back")
    assert not (tasks.folder / "imagemill-7" / "over").exists()


def _command_line(pid: int) -> str:
    """The command line of a process."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""
