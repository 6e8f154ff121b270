"""Who can write to Redis or to a spool leads no worker out of its root, nor to a model it must not load.

This file times servers and workers of its own: it is among the tests that have the cores to themselves.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jobs.entry import Entry
from jobs.ledger import redis_keys
from jobs.ledger.job import JobStatus
from jobs.ledger.shard import decode_shard, encode_shard
from jobs.request import ImageRequest
from tests.farm import Farm
from tests.waiting import WaitUntil
from worker.engine.renderer import RenderedBy

Finish = Callable[..., JobStatus]


def tamper(farm: Farm, job_id: str, **changes: object) -> None:
    """Changes a stored job's spec, as someone who can write to Redis could."""
    key = redis_keys.job(job_id, "spec")
    spec = json.loads(farm.client.get(key))
    farm.client.set(key, json.dumps(spec | changes))


def everything_in(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((str(file), file.read_bytes() if file.is_file() else b"") for file in folder.rglob("*"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("{outside}/new", "outside IMAGEMILL_OUTPUT_ROOT"),
        ("{root}/../outside/new", "outside IMAGEMILL_OUTPUT_ROOT"),
        ("{root}/link/new", "outside IMAGEMILL_OUTPUT_ROOT"),
        ("{root}/out/../../outside/new", "outside IMAGEMILL_OUTPUT_ROOT"),
        ("{root}/a\0b", "cannot be a path"),
        ("{root}/a\ud800b", "cannot be a path"),
        ("{root}/" + "x" * 300, "File name too long"),
        ("outside/new", "must be absolute"),
    ],
    ids=[
        "elsewhere",
        "dots",
        "link",
        "dots of a folder that is not there",
        "NUL",
        "surrogate",
        "long",
        "relative",
    ],
)
def test_a_job_that_was_turned_to_another_output_writes_nothing_there(
    farm: Farm, wait_until: WaitUntil, output: str, message: str
) -> None:
    root, outside = farm.folder / "root", farm.folder / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "mine").write_text("precious")
    (root / "link").symlink_to(outside)
    job_id = farm.submit(8, output=str(root / "out"))
    tamper(farm, job_id, output=output.format(root=root, outside=outside))
    before = everything_in(outside)
    farm.start_worker(output_root=root)
    wait_until(lambda: message in farm.log("w1"), f"the worker says why; {farm.log('w1')}")
    watched = farm.command("watch", job_id)
    assert watched.returncode == 2
    assert message in watched.stderr
    assert everything_in(outside) == before
    assert not list(root.glob("*/[0-9]*"))
    assert farm.status(job_id).left == 8


@pytest.mark.parametrize(
    "place", ["", ".imagemill", ".imagemill/spool", ".imagemill/spool/00000", ".imagemill/inputs"]
)
def test_a_link_out_of_the_root_put_in_after_submitting_is_not_followed(
    farm: Farm, wait_until: WaitUntil, place: str
) -> None:
    root, outside = farm.folder / "root", farm.folder / "outside"
    outside.mkdir()
    job_id = farm.submit(8, output=str(root / "out"))
    link = root / "out" / place
    if link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(outside)
    farm.start_worker(output_root=root)
    wait_until(lambda: "outside IMAGEMILL_OUTPUT_ROOT" in farm.log("w1"), "the worker says why")
    assert list(outside.iterdir()) == []
    assert farm.status(job_id).left == 8


def test_latents_by_another_name_than_a_hash_are_never_opened(farm: Farm, finished: Finish) -> None:
    job_id = farm.submit(2)
    base = ImageRequest.from_mapping(farm.ledger.spec(job_id).base)
    shards = redis_keys.job(job_id, "shards")
    shard = decode_shard(farm.client.hget(shards, "0"), base, "cats")
    names = ("../../../secret", "/etc/passwd")
    turned = [
        Entry.of(replace(entry.request, init_latents=name))
        for entry, name in zip(shard.entries, names, strict=True)
    ]
    farm.client.hset(shards, "0", encode_shard(replace(shard, entries=turned), base))
    farm.start_worker()
    job = finished(job_id)
    assert (job.outcome, job.done) == ("failures", 0)
    assert f"init_latents = {names[0]!r}" in job.broken[0]


def test_a_file_name_in_spooled_metadata_leads_nowhere_else(farm: Farm, finished: Finish) -> None:
    job_id = farm.submit(2)
    secret = farm.folder / "secret.png"
    secret.write_bytes(b"precious")
    base = ImageRequest.from_mapping(farm.ledger.spec(job_id).base)
    shard = decode_shard(farm.client.hget(redis_keys.job(job_id, "shards"), "0"), base, "cats")
    attempt = farm.output / ".imagemill" / "spool" / "00000" / "000000-00000000"
    for folder in ("images", "metadata"):
        (attempt / folder).mkdir(parents=True)
    up = Path("../" * len((attempt / "images").relative_to(farm.folder).parts))
    assert (attempt / "images" / up / "secret.png").read_bytes() == b"precious"
    names = (str(up / "secret.png"), str(secret))
    rendered = asdict(RenderedBy(precision="fp32", rows=16, device="cpu", versions={}))
    for entry, name in zip(shard.entries, names, strict=True):
        saved = {
            "image_id": entry.request.image_id, "file_name": name, "rendered": rendered, "flagged": None,
            "sha256": hashlib.sha256(b"precious").hexdigest(),
        }  # fmt: skip
        (attempt / "metadata" / f"{entry.request.image_id}.json").write_text(json.dumps(saved))
    farm.start_worker()
    finished(job_id)
    farm.check_exact(job_id, 2)
    assert b"precious" not in [content for _name, content in everything_in(farm.output)]


def test_a_worker_with_a_list_of_models_takes_no_other_also_when_the_jobs_parts_disagree(
    farm: Farm, wait_until: WaitUntil
) -> None:
    farm.start_worker("w1", "--model", "instant")
    job_id = farm.submit(2, model="shapes-random")
    tamper(farm, job_id)
    pipeline = json.loads(farm.client.hget(redis_keys.job(job_id), "pipeline") or "[]")
    said = {"model": "instant", "pipeline": json.dumps(["instant", *pipeline[1:]])}
    farm.client.hset(redis_keys.job(job_id), mapping=said)
    farm.client.delete(redis_keys.CLAIMABLE)  # it is put among the jobs of the model that it says
    done = farm.command("watch", job_id)
    assert done.returncode == 2
    assert "model = shapes-random: this worker takes instant alone" in done.stderr
    assert "loaded shapes-random" not in farm.log("w1")
    wait_until(lambda: farm.status(job_id).shards_leased == 0, "the shard went back")


def test_a_size_beyond_all_bounds_is_refused_at_once_and_the_worker_goes_on(
    farm: Farm, finished: Finish, wait_until: WaitUntil
) -> None:
    job_id = farm.submit(2)
    base = farm.ledger.spec(job_id).base
    tamper(farm, job_id, base=base | {"height": 10**9})
    farm.start_worker()
    wait_until(lambda: "base: height = 1000000000: must be" in farm.log("w1"), "the worker says why")
    other = farm.submit(2, name="dogs", output=str(farm.folder / "dogs"))
    assert finished(other).outcome == "complete"
    assert "Traceback" not in farm.log("w1")
    done = farm.command("cancel", job_id)
    assert done.returncode == 0, done.stderr
