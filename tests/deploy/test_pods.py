"""The pods of deploy/kubernetes/batch finish a job here, without containers, though one is drained.

Of what the files say only paths, the address of Redis, the GPU and the seconds of idleness are replaced. A
few lines stand in for the Job's controller.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.ledger.ledger import Ledger
from producer.embedded_redis import find_binary
from tests.deploy.kubernetes import EVERYTHING, FOLDER, PODS, secrets, variables
from tests.ports import free_port
from tests.waiting import LONGEST, WaitUntil
from tests.warm_python import BIN

IMAGES, SHARD = 160, 8
JOB = ("Job", "workers")


class Pods:
    """Processes with the command lines and the variables of containers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for path in ("work/out", "cache", "data", "manifests", "bin"):
            (folder / path).mkdir(parents=True)
        (folder / "bin" / "valkey-server").symlink_to(find_binary())
        (folder / "deploy").symlink_to(FOLDER / "base")

    def here(self, text: str, name: str) -> str:
        """A word of a command, or a variable's value, as it must read on this machine."""
        text = re.sub(r"(?<![/\w])/(work|cache|data|manifests|deploy)(?!\w)", rf"{self.folder}/\1", text)
        text = text.replace("/var/lib/imagemill", f"{self.folder}/{name}")
        return text.replace("@redis:6379", f"@127.0.0.1:{self.port}").replace("6379", str(self.port))

    def start(self, kind: str, pod: str, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Starts the pod's container; `options` come after its own."""
        [container] = PODS[kind, pod]["containers"]
        settings = {"TORCH_THREADS": 1, "MIN_FREE_DISK": 0, "INSTANT_SECONDS": 0.5, "LEASE": 60}
        env = {
            **os.environ,
            **{f"IMAGEMILL_{variable}": str(value) for variable, value in settings.items()},
            **{of: self.here(value, name) for of, value in variables(PODS[kind, pod]).items() if value},
            **(passwords := {of: f"the-{key}s" for of, (_, key) in secrets(PODS[kind, pod]).items()}),
            "PATH": f"{BIN}:{self.folder / 'bin'}:{os.environ['PATH']}",
        }
        if "IMAGEMILL_REDIS_URL" in env:
            env["IMAGEMILL_REDIS_URL"] = env["IMAGEMILL_REDIS_URL"].replace(
                "$(REDIS_PASSWORD)", passwords["REDIS_PASSWORD"]
            )
        command = [self.here(word, name) for word in container["command"]]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*command, *options],
                cwd=self.here(container.get("workingDir", "/data"), name),
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.running[name]

    def log(self, name: str) -> str:
        """What a pod has logged."""
        return (self.folder / f"{name}.log").read_text()

    def worker(self, index: int) -> subprocess.Popen[bytes]:
        """Starts a pod of the Job of workers, on the CPU and with little patience."""
        name = f"workers-{index}"
        return self.start(*JOB, name, "--gpus", "none", "--until-idle", "3", "--name", name)

    def stop(self) -> None:
        """Ends everything."""
        for process in self.running.values():
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
            process.wait()


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    started = Pods(tmp_path)
    yield started
    started.stop()


def test_four_pods_finish_a_job_though_one_is_drained_and_another_takes_its_index(
    pods: Pods, wait_until: WaitUntil
) -> None:
    manifest = {
        "name": "demo",
        "model": "instant",
        "output": "out/demo",
        "shard_size": SHARD,
        "settings": {"height": 64, "width": 64, "num_inference_steps": 4},
        "prompts": [f"picture {number}" for number in range(IMAGES)],
    }
    (pods.folder / "manifests" / "demo.yaml").write_text(json.dumps(manifest))
    submitting = pods.start("Job", "submit", "submit")
    wait_until(lambda: "Redis does not answer" in pods.log("submit"), "Redis is not there yet")
    pods.start("StatefulSet", "redis", "redis")
    indices = range(EVERYTHING[JOB]["spec"]["completions"])
    assert submitting.wait(LONGEST) == 0, "it has waited: the Job's controller would do so for minutes"
    # After it, because they have little patience here.
    workers = {index: pods.worker(index) for index in indices}
    ledger = Ledger(f"redis://producer:the-producers@127.0.0.1:{pods.port}/0")
    wait_until(
        lambda: (status := ledger.status("demo-1")).workers and status.done >= SHARD,
        "the job is under way",
        progress=lambda: ledger.status("demo-1").done,
    )
    drained = int(ledger.status("demo-1").workers[0].rpartition("-")[2])
    workers[drained].terminate()
    assert workers[drained].wait(LONGEST) == 143
    assert ledger.status("demo-1").state != "finished"
    workers[drained] = pods.worker(drained)
    assert {index: process.wait(LONGEST) for index, process in workers.items()} == dict.fromkeys(indices, 0)
    status = ledger.status("demo-1")
    assert (status.state, status.outcome, status.done) == ("finished", "complete", IMAGES)
    records = [
        line for file in (pods.folder / "work/out/demo").glob("[0-9]*/metadata.jsonl") for line in file.open()
    ]
    assert len(records) == IMAGES
