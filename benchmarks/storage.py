"""An output in a bucket: exact under faults, and how fast beside a folder of tars.

    python benchmarks/storage.py [--toy | --full]

First the long run of faults, in short, with its workers, its S3 on loopback and the way to it that breaks
(`python -m tests.faults.soak --bucket`). Then the whole system renders the same job into a folder and into a
bucket, in turn, both as tars; each arm has a Redis and a worker of its own, which has loaded its model.
A job's time is the ledger's: from its first claim to the moment nothing was left to render. The S3 is a
process on the same cores, as no store of a user is: the share of a core that it takes is shown, and the CPU
time of the worker itself in both arms, its finishing included. The ratio is the median of the rounds' ratios.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.progress import track
from sizes import parse_sized
from timed_farm import TimedFarm, timed_farm

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from tests.object_store.breakable_store import BreakableStore  # noqa: E402
from tests.object_store.fault import Kind  # noqa: E402

SHARD_SIZE, SLOTS, BUCKET = 64, 16, "benchmark"
PLACE = f"s3://{BUCKET}"
ARMS = ("folder", "bucket")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a job took."""

    seconds: float
    worker: float
    """CPU seconds of the process that renders."""
    server: float
    """CPU seconds of the object store and of the way to it."""


def under_faults(faults: int, images: int) -> dict[str, object]:
    """What the long run found; SystemExit with its words where it is not exact."""
    command = [sys.executable, "-m", "tests.faults.soak", "--bucket", "--only", "store"]
    command += ["--faults", str(faults), "--images", str(images)]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    last = ran.stdout.splitlines()[-1:] or [""]
    if not last[0].startswith("{"):
        raise SystemExit(f"the run under faults broke off:\n{ran.stdout}{ran.stderr}")
    found: dict[str, object] = json.loads(last[0])
    if not found["exact"]:
        print(ran.stdout, file=sys.stderr)
    return found


def cpu_seconds(*processes: psutil.Process) -> float:
    """Those of the processes until now."""
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


class Arm:
    """A worker that may write to one place, and stays for one job after another."""

    def __init__(self, here: TimedFarm, place: str, server: Sequence[psutil.Process], **job: object) -> None:
        """`job`: what every manifest says."""
        self._here, self._place, self._server, self._job, self._jobs = here, place, server, job, 0
        self._worker = here.celery(here.start_worker())

    def run(self, images: int, then: Callable[[], None] = lambda: None) -> Taken:
        """Renders a job; raises SystemExit unless each image of it is there once.

        `then` is called at its end, before anybody looks at what is there.
        """
        self._jobs += 1
        name = f"job{self._jobs}"
        before = cpu_seconds(self._worker), cpu_seconds(*self._server)
        job_id = self._here.submit(
            name,
            [f"a picture of number {n}, drawn in colour" for n in range(images)],
            **{"output": f"{self._place}/{name}", "layout": "webdataset", "shard_size": SHARD_SIZE}
            | self._job,
        )
        status = self._here.finished(job_id)
        after = cpu_seconds(self._worker), cpu_seconds(*self._server)
        then()
        self._here.check_exact(job_id, images)
        return Taken(status.ended - status.started, after[0] - before[0], after[1] - before[1])


def requests_of_a_shard(folder: Path, store: BreakableStore, shards: int) -> dict[str, float]:
    """How many of each kind each further shard of a job takes, its finishing among them."""
    counts: list[dict[Kind, int]] = []
    os.environ |= store.environment()
    with timed_farm(folder, output_root=PLACE) as here:
        arm = Arm(here, f"{PLACE}/counted", [], model="instant")
        arm.run(SHARD_SIZE)  # the first asks how the store copies
        for images in (SHARD_SIZE, SHARD_SIZE * (1 + shards)):
            store.forget()
            arm.run(images, lambda: counts.append({kind: store.traffic(kind).requests for kind in Kind}))
    few, many = counts
    return {str(kind): round((many[kind] - few[kind]) / shards, 1) for kind in Kind if many[kind] > few[kind]}


def in_turn(
    folder: Path, store: BreakableStore, rounds: int, images: int, **job: object
) -> dict[str, list[Taken]]:
    """What the same job took in each arm, round by round."""
    server = [process for process in psutil.Process().children() if _serves(process)]
    taken: dict[str, list[Taken]] = {arm: [] for arm in ARMS}
    os.environ |= store.environment(store.direct)
    with ExitStack() as stack:
        arms = {}
        for arm, place in zip(ARMS, (str(folder / "local"), PLACE), strict=True):
            (folder / arm).mkdir()
            here = stack.enter_context(timed_farm(folder / arm, batch_size=SLOTS, output_root=place))
            arms[arm] = Arm(here, place, server, **job)
            arms[arm].run(SLOTS)  # loads the model
        for number in track(range(rounds), "rounds", disable=not sys.stderr.isatty()):
            for arm in ARMS if number % 2 else reversed(ARMS):
                taken[arm].append(arms[arm].run(images))
    return taken


def _serves(process: psutil.Process) -> bool:
    return any("tests.object_store." in word for word in process.cmdline())


def main() -> None:
    """Prints tables and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="shapes")
    options = parse_sized(
        parser,
        faults=(1, 10, 40),
        fault_images=(64, 1500, 5000),
        shards=(1, 8, 8),
        rounds=(1, 3, 5),
        images=(8, 192, 512),
        steps=(2, 20, 20),
    )
    began = time.monotonic()
    found = under_faults(options.faults, options.fault_images)
    print(
        f"{found['faults']} faults over {found['images']} images in a bucket, {found['runs']} jobs: lost "
        f"{found['lost']}, doubled {found['doubled']}, in {time.monotonic() - began:.0f} s"
    )
    with tempfile.TemporaryDirectory() as name, BreakableStore() as store:
        folder = Path(name)
        store.make_bucket(BUCKET)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        (folder / "counting").mkdir()
        requests = requests_of_a_shard(folder / "counting", store, options.shards)
        settings = {"height": 64, "width": 64, "num_inference_steps": options.steps}
        job = {"model": options.model, "settings": settings}
        taken = in_turn(folder, store, options.rounds, options.images, **job)
    print(f"requests for each shard of {SHARD_SIZE}: {sum(requests.values()):.1f}, {requests}")
    print(f"{options.images} images of 64x64 by {options.model}, {options.steps} steps, {SHARD_SIZE} a shard")
    print(f"{'arm':<8}{'median s':>10}{'min s':>8}{'worker CPU ms/image':>21}{'server, cores':>15}")
    for arm, times in taken.items():
        seconds = [one.seconds for one in times]
        cpu = 1000 * statistics.median(one.worker for one in times) / options.images
        share = statistics.median(one.server / one.seconds for one in times)
        print(f"{arm:<8}{statistics.median(seconds):>10.2f}{min(seconds):>8.2f}{cpu:>21.1f}{share:>15.3f}")
    folders, buckets = (taken[arm] for arm in ARMS)
    ratios = [one.seconds / other.seconds for one, other in zip(folders, buckets, strict=True)]
    result = {
        "lost": found["lost"],
        "doubled": found["doubled"],
        "speed_vs_local": round(statistics.median(ratios), 3),
        "by_minima": round(min(t.seconds for t in folders) / min(t.seconds for t in buckets), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "worker_cpu": round(
            statistics.median(t.worker for t in buckets) / statistics.median(t.worker for t in folders), 3
        ),
        "requests_per_shard": round(sum(requests.values()), 1),
    }
    print(json.dumps(result))
    sys.exit(0 if found["exact"] else 1)


if __name__ == "__main__":
    main()
