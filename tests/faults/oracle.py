"""What must be true of jobs that ended: every image there once, counted once, and nothing left behind.

Read from the disk, or from a bucket (`mirror`), and from Redis by means of its own, the doctor of the product
beside them: an oracle that asked the code it judges would agree with it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from jobs.output.output import Output
from producer.doctor.checkup import check_output
from tests.faults.mirror import as_folder

LASTING = {
    *("numbers", "jobs", "active", "claimable", "swept", "leases", "reaped", "events", "workers", "rows"),
    *("rates", "ledger", "counted"),
}
"""Keys behind imagemill: that no job's end takes away (`jobs.ledger.redis_keys`)."""
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
OURS = re.compile(
    r"[0-9]{5}[.](tar|parquet)|job[.]json|README[.]md|preview[.]jpg|failures[.]jsonl"
    r"|[.]imagemill/((licences|rows|shards|writer)[.]json|jobs/[\w-]+[.](json|order|lines[.]jsonl))"
)
"""What an output in a bucket may hold in the end."""


@dataclass(slots=True)
class Verdict:
    """The facts of one output and its jobs; `problems` says in words what is wrong with them."""

    images: int = 0
    """Asked for."""
    files: int = 0
    """Pictures in committed shards."""
    bits: int = 0
    """Done bits, and what the output held when the last job was submitted; so is the next."""
    counted: int = 0
    lost: int = 0
    """Asked for and not there."""
    doubled: int = 0
    """Pictures of an image_id beyond its first."""
    finish_events: int = 0
    regenerated: int = 0
    """Times that an image entered the rows beyond its first."""
    runs: int = 0
    """Of all jobs: as many finish events there should be."""
    problems: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return not self.problems

    def add(self, other: Verdict) -> None:
        """Takes in what was found of another output."""
        for name in (
            "images",
            "files",
            "bits",
            "counted",
            "lost",
            "doubled",
            "finish_events",
            "regenerated",
            "runs",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems


def judge(
    output: str, client: redis.Redis, job_id: str, asked: Collection[str], begun: Sequence[str] = ()
) -> Verdict:
    """Compares the output with Redis' account of the job that wrote it last, which is finished.

    `asked`: the image_ids of the manifest. `begun`: the image_id of every image that entered a worker's rows.
    """
    verdict = Verdict(images=len(set(asked)))
    with as_folder(output) as folder:
        _judge_files(folder, set(asked), verdict)
        _judge_redis(client, folder, job_id, verdict)
        if folder != Path(output):
            _judge_objects(folder, verdict)
    ours = [image_id for image_id in begun if image_id in set(asked)]
    verdict.regenerated = len(ours) - len(set(ours))
    verdict.problems += [f"doctor: {problem}" for problem in check_output(Output.at(output)).problems]
    return verdict


def _judge_files(output: Path, asked: set[str], verdict: Verdict) -> None:
    say = verdict.problems.append
    held: Counter[str] = Counter()
    for place, row, picture in _committed(output):
        if picture is None:
            say(f"{place}: {row['file_name']} is not there")
            continue
        if hashlib.sha256(picture).hexdigest() != row["sha256"]:
            say(f"{place}: {row['file_name']} is not what its SHA-256 says")
        held[row["image_id"]] += 1
    verdict.files = len([file for file in output.glob("[0-9]*/*") if file.suffix in PICTURES])
    for tar in output.glob("[0-9]*.tar"):
        with tarfile.open(tar) as members:
            verdict.files += sum(Path(name).suffix in PICTURES for name in members.getnames())
    verdict.lost, verdict.doubled = len(asked - held.keys()), held.total() - len(held)
    if verdict.lost:
        say(f"lost: {verdict.lost} images, {sorted(asked - held.keys())[:3]} among them")
    if verdict.doubled:
        say(f"doubled: {[image_id for image_id, times in held.items() if times > 1][:3]}")
    if strange := held.keys() - asked:
        say(f"nobody asked for {sorted(strange)[:3]}")
    if verdict.files != held.total():
        say(f"{verdict.files} files, {held.total()} records")
    if (output / ".imagemill" / "spool").exists():
        say("the spool is still there")
    left = [file for file in output.rglob(".*") if file.name.endswith(".tmp")]
    if left:
        say(f"left behind: {[str(file.relative_to(output)) for file in left]}")


def _judge_objects(folder: Path, verdict: Verdict) -> None:
    """A bucket has no temporary files; what is left of uploads and probes lies beside the rest."""
    names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    strange = [name for name in names if OURS.fullmatch(name) is None]
    if strange:
        verdict.problems.append(f"left behind: {len(strange)} objects, {sorted(strange)[:3]} among them")
    tars = {Path(name).stem for name in names if name.endswith(".tar")}
    tables = {Path(name).stem for name in names if name.endswith(".parquet")}
    if tars != tables:
        verdict.problems.append(f"tars without a parquet, or the other way round: {sorted(tars ^ tables)}")


def _committed(output: Path) -> Iterator[tuple[str, dict[str, Any], bytes | None]]:
    """Shard, record and picture (None: there is none) of every committed image, in either layout."""
    for file in sorted(output.glob("[0-9]*/metadata.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            picture = file.parent / row["file_name"]
            yield file.parent.name, row, picture.read_bytes() if picture.is_file() else None
    for file in sorted(output.glob("[0-9]*.tar")):
        with tarfile.open(file) as tar:
            members = {member.name: member for member in tar if not member.name.startswith(".")}
            read = {name: tar.extractfile(member).read() for name, member in members.items()}  # type: ignore[union-attr]
        for name, data in read.items():
            if name.endswith(".json"):
                row = json.loads(data)
                yield file.name, row, read.get(row["file_name"])


def _judge_redis(client: redis.Redis, output: Path, job_id: str, verdict: Verdict) -> None:
    say = verdict.problems.append
    job = {name.decode(): value.decode() for name, value in client.hgetall(f"imagemill:job:{job_id}").items()}
    if job.get("state") != "finished":
        say(f"{job_id} is {job.get('state', 'unknown to Redis')}")
        return
    bits = int.from_bytes(client.get(f"imagemill:job:{job_id}:done") or b"", "big").bit_count()
    held, done, runs = int(job["held"]), int(job["done"]), int(job["run"])
    verdict.bits, verdict.counted, verdict.runs = held + bits, held + done, runs
    if (done, int(job["left"]), int(job["failed"])) != (int(job["total"]), 0, 0):
        say(f"{job_id}: {job['total']} in all, {done} done, {job['failed']} failed, {job['left']} left")
    if not verdict.images == verdict.files == verdict.bits == verdict.counted:
        say(f"{verdict.images} images, {verdict.files} files, {verdict.bits} bits, {verdict.counted} counted")
    runs_reported = [
        int(event[b"run"])
        for _id, event in client.xrange("imagemill:events")
        if event[b"job"].decode() == job_id
    ]
    verdict.finish_events = len(runs_reported)
    if sorted(runs_reported) != list(range(1, runs + 1)):
        say(f"{job_id}: {runs} runs, finish events of {sorted(runs_reported)}")
    report = json.loads((output / "job.json").read_text())
    if (report["job_id"], report["outcome"], report["images"]["done"]) != (job_id, "complete", done):
        message = f"{report['job_id']}, {report['outcome']}, {report['images']}"
        say(f"job.json says {message}; Redis of {done} done")
    _judge_keys(client, job_id, say)


def _judge_keys(client: redis.Redis, job_id: str, say: Callable[[str], None]) -> None:
    leases = [member.decode() for member in client.zrange("imagemill:leases", 0, -1)]
    if left := [lease for lease in leases if lease.rpartition("/")[0] == job_id]:
        say(f"leases are still there: {left}")
    active = {other.decode() for other in client.zrange("imagemill:active", 0, -1)}
    if job_id in active:
        say(f"{job_id} is still active")
    for key in client.scan_iter("imagemill:*", count=1000):
        name = key.decode().removeprefix("imagemill:")
        owner = name.split(":")[1] if name.startswith("job:") else ""
        if name.startswith("output:"):
            owner = (client.get(key) or b"").decode()
        if name not in LASTING and owner not in active and client.ttl(key) == -1:
            say(f"the key {key.decode()} has no TTL")
