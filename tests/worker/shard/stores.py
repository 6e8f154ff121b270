"""Stores for the tests of a shard's store, in either layout; what a whole shard is; a system that crashes."""

import hashlib
import json
import os
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.entry import Entry
from jobs.output.metadata import Failure
from jobs.request import ImageRequest
from worker.engine.renderer import RenderedBy
from worker.shard.store import ShardStore

RENDERED_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"torch": "2.13.0"})
LAYOUT = "files"
FILES = pytest.mark.parametrize("layout", ["files"], indirect=True)
WEBDATASET = pytest.mark.parametrize("layout", ["webdataset"], indirect=True)


def entries(count, first_seed=0, **columns):
    requests = [
        ImageRequest(prompt=f"scene {i}", seed=first_seed + i, model="m", revision="r", height=8, width=8)
        for i in range(count)
    ]
    return [Entry.of(request=request, id=f"line {i}", columns=columns) for i, request in enumerate(requests)]


def pixels(position):
    return np.random.default_rng(position).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def a_store(output, lines, *, shard=3, attempt="1", job_id="scenes-1", adopt_below=0, column_names=()):
    return ShardStore(
        output,
        shard,
        attempt,
        lines,
        job_id=job_id,
        column_names=column_names,
        adopt_below=adopt_below,
        layout=LAYOUT,
    )


def save(store, *positions):
    for position in positions:
        store.save(position, pixels(position), RENDERED_BY)


def a_failure(lines, position, shard=3):
    return Failure(
        shard=shard,
        position=position,
        entry=lines[position],
        reason="black",
        job_id="scenes-1",
        command="render it",
    )


def files_of(folder):
    return sorted(file.name for file in folder.iterdir())


def check_whole(output, lines, shard, failed=()):
    """The shard is there once, every line of it is in it or among its failures, and every file is sound."""
    records = list(output.records(shard))
    done = [position for position in range(len(lines)) if position not in failed]
    assert [record["image_id"] for record in records] == [
        lines[position].request.image_id for position in done
    ]
    assert [record["file_name"] for record in records] == [
        f"{shard:05d}{position:04d}.png" for position in done
    ]
    pictures = dict(output.pictures(shard, {record["file_name"] for record in records}))
    assert [hashlib.sha256(data).hexdigest() for data in pictures.values()] == [r["sha256"] for r in records]
    assert list(pictures) == [record["file_name"] for record in records]
    assert [failure.position for failure in output.shard_failures(shard)] == sorted(failed)
    names = sorted(file.name for file in output.path.iterdir() if file.name[0] != ".")
    if LAYOUT == "files":
        own = (["metadata.jsonl"] if records else []) + ([".failures.jsonl"] if failed else [])
        assert files_of(output.shard_folder(shard)) == sorted([*pictures, *own])
        assert names == [f"{shard:05d}"]
    else:
        check_tar_and_parquet(output.path / f"{shard:05d}.tar", records, lines, failed)
        assert names == [f"{shard:05d}.parquet", f"{shard:05d}.tar"]
    assert not output.spool_folder(shard, "1").parent.exists()


def check_tar_and_parquet(tar, records, lines, failed):
    with tarfile.open(tar) as opened:
        members = {member.name: opened.extractfile(member).read() for member in opened}
    keys = [record["file_name"].removesuffix(".png") for record in records]
    failures = members.pop(".failures.jsonl", b"").splitlines()
    assert [json.loads(line)["position"] for line in failures] == sorted(failed)
    assert list(members) == [f"{key}.{ending}" for key in keys for ending in ("png", "txt", "json")]
    for key, record in zip(keys, records, strict=True):
        assert members[f"{key}.txt"].decode() == record["text"]
        assert json.loads(members[f"{key}.json"]) == record
    table = pq.read_table(tar.with_suffix(".parquet")).to_pylist()
    statuses = ["failed_to_render" if position in failed else "success" for position in range(len(lines))]
    assert [line["status"] for line in table] == statuses
    assert [line["image_id"] for line in table] == [line.request.image_id for line in lines]
    assert [line["sha256"] for line in table if line["status"] == "success"] == [r["sha256"] for r in records]


class Crash(BaseException):
    """The process is gone: nothing after it runs."""


class CrashingSystem:
    """Lets `calls` renames and links through and dies before or after the next; then nothing works."""

    def __init__(self, monkeypatch, calls, after):
        self.left, self.after, self.dead = calls, after, False
        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        monkeypatch.setattr(os, "unlink", self.dead_or(os.unlink))
        monkeypatch.setattr(os, "rmdir", self.dead_or(os.rmdir))

    def counted(self, call):
        def wrapped(*args, **kwargs):
            self.left -= 1
            if self.left < 0:
                self.dead = True
                if self.after and self.left == -1:
                    call(*args, **kwargs)
                raise Crash
            return call(*args, **kwargs)

        return wrapped

    def dead_or(self, call):
        def wrapped(*args, **kwargs):
            if self.dead:
                raise Crash
            return call(*args, **kwargs)

        return wrapped
