"""Real workers and commands, with the command lines of a user, on a Redis that the test gives.

`benchmarks/timed_farm.py` is the benchmarks'. This one waits for progress, not for a number of seconds; it
runs the commands too, and its checks are assertions.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil

from jobs.ledger.job import JobStatus
from jobs.ledger.ledger import Ledger
from jobs.settings import Settings
from producer.job_queue import JobQueue
from producer.requests.prepared import prepare
from producer.submit.submit import submit_manifest
from tests.processes import kill_families
from tests.waiting import LONGEST, wait_until
from tests.warm_python import BIN, WarmPython, warm_imagemill

LEASE = 3.0


class Server(Protocol):
    """A Redis that a farm works with."""

    url: str
    pid: int

    @property
    def folder(self) -> Path: ...


class Farm:
    """A folder, a Redis and any number of workers."""

    worker_command: Sequence[str | Path] = (BIN / "imagemill-worker",)
    python: Callable[[], WarmPython] = staticmethod(warm_imagemill)
    """Gives what its programs are copies of."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.ledger = Ledger(server.url)
        self.client = self.ledger.client
        self.output = folder / "out"
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "runtime").mkdir(exist_ok=True)

    def environment(self, **settings: object) -> dict[str, str]:
        """What a worker or a command line of this farm finds in its environment."""
        own = {
            "REDIS_URL": self.server.url,
            "OUTPUT_ROOT": self.folder,
            "LEASE": LEASE,
            "TORCH_THREADS": 1,
            "MIN_FREE_DISK": 0,
            "RUNTIME_DIR": self.folder / "runtime",
        } | settings
        return {**os.environ, **{f"IMAGEMILL_{name.upper()}": str(value) for name, value in own.items()}}

    def start_worker(self, name: str = "w1", *options: str, **settings: object) -> subprocess.Popen[bytes]:
        """Starts `imagemill-worker`; its log is NAME.log in the farm's folder."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.workers[name] = self.python().popen(
                [*self.worker_command, "--gpus", "none", "--name", name, *options],
                env=self.environment(**settings),
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        return self.workers[name]

    def celery_pid(self, name: str) -> int | None:
        """The process that renders, under the worker's supervisor."""
        children = psutil.Process(self.workers[name].pid).children()
        return children[0].pid if children else None

    def log(self, name: str) -> str:
        """What a worker has logged."""
        return (self.folder / f"{name}.log").read_text()

    def manifest(self, prompts: list[object] | int | None, **keys: object) -> Path:
        """Writes a manifest of the stand-in model; JSON is YAML. `prompts`: None where `keys` say."""
        lines = [f"picture {n}" for n in range(prompts)] if isinstance(prompts, int) else prompts
        settings = {"height": 64, "width": 64, "num_inference_steps": 4} | dict(keys.pop("settings", {}))  # type: ignore[call-overload]
        manifest = {
            "name": "cats",
            "model": "instant",
            "output": str(self.output),
            "shard_size": 8,
            "settings": settings,
            **({} if lines is None else {"prompts": lines}),
        } | keys
        file = self.folder / f"{manifest['name']}.yaml"
        file.write_text(json.dumps(manifest))
        return file

    def submit(self, prompts: list[object] | int, **keys: object) -> str:
        """Submits a manifest; returns the job's id."""
        prepared = prepare(self.manifest(prompts, **keys), Settings())
        return submit_manifest(prepared, JobQueue.at(self.server.url)).job_id

    def status(self, job_id: str) -> JobStatus:
        """The job as the ledger has it."""
        return self.ledger.status(job_id)

    def finished(self, job_id: str) -> JobStatus:
        """Waits until a job is finished, for as long as it comes nearer to it; returns its status."""
        logs = [self.folder / f"{name}.log" for name in self.workers]

        def progress() -> object:
            status = self.status(job_id)
            return status.done, status.failed, status.state, [log.stat().st_size for log in logs]

        try:
            wait_until(lambda: self.status(job_id).state == "finished", f"{job_id} ends", progress=progress)
        except BaseException as error:
            error.add_note("\n".join(f"{name}: {self.log(name)[-2000:]}" for name in self.workers))
            raise
        return self.status(job_id)

    def command(self, *arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
        """Runs `imagemill ARGUMENTS` to its end."""
        return self.run_in(self.environment(**settings), *arguments)

    def run_in(
        self, environment: Mapping[str, str], *arguments: str | Path
    ) -> subprocess.CompletedProcess[str]:
        """Runs `imagemill ARGUMENTS` to its end in an environment of the caller's."""
        return self.python().call(
            [BIN / "imagemill", *arguments], cwd=self.folder, env=environment, timeout=2 * LONGEST
        )

    def records(self) -> list[dict[str, object]]:
        """Every metadata record of the output, checked to have its picture."""
        records = []
        for file in sorted(self.output.glob("[0-9]*/metadata.jsonl")):
            for line in file.read_text().splitlines():
                record = json.loads(line)
                assert (file.parent / record["file_name"]).is_file(), record
                records.append(record)
        return records

    def check_exact(self, job_id: str, images: int) -> None:
        """Files, metadata, bits and counters agree: every image once."""
        records = self.records()
        assert len(records) == images
        assert len({record["image_id"] for record in records}) == images
        pictures = [file for file in self.output.glob("[0-9]*/*") if file.suffix != ".jsonl"]
        assert len(pictures) == images
        status = self.status(job_id)
        assert (status.done, status.left, status.failed, status.total) == (images, 0, 0, images)
        assert self.ledger.done_bits(job_id).count() == images
        events = self.client.xrange("imagemill:events")
        assert len([1 for _, event in events if event[b"job"].decode() == job_id]) == 1

    def stop(self) -> None:
        """Ends every worker, whatever state it is in."""
        kill_families(self.workers.values())
