"""A job with pictures and a LoRA whose output lies in a bucket: the bytes of a folder, and no secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard
from PIL import Image, ImageDraw

from jobs.errors import OutputError
from jobs.output.output import Output
from jobs.settings import Settings
from producer.requests.prepared import prepare
from tests.farm import Farm
from tests.lora_files import random_lora
from tests.object_store.breakable_store import BreakableStore
from tests.waiting import wait_until
from tests.warm_python import warm_painter

SLOTS = 8


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def lines(tmp_path: Path) -> list[dict[str, Any]]:
    picture = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(picture).rectangle((16, 16, 44, 44), fill="red")
    picture.save(tmp_path / "square.png")
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((0, 0, 31, 63), fill=255)
    mask.save(tmp_path / "mask.png")
    random_lora(tmp_path / "striped.safetensors", 1)
    line: dict[str, Any] = {"prompt": "a red circle"}
    changes: list[dict[str, Any]] = [
        {},
        {"image": "square.png", "strength": 0.7},
        {"image": "square.png", "mask_image": "mask.png"},
        {"loras": [{"file": "striped.safetensors", "scale": 0.8}]},
    ]
    return [line | {"seed": seed} | change for seed in range(2) for change in changes]


def pictures(output: Output) -> dict[str, str]:
    """image_id -> SHA-256 of the file, of all that the output holds."""
    found: dict[str, str] = {}
    for shard in output.shards():
        names = {record["file_name"]: record["image_id"] for record in output.records(shard)}
        for name, contents in output.pictures(shard, names):
            assert names[name] not in found
            found[names[name]] = hashlib.sha256(contents).hexdigest()
    return found


def held(client: Any) -> Iterator[bytes]:
    """All that a Redis holds, unpacked."""
    read = {
        b"string": lambda key: [client.get(key)],
        b"hash": lambda key: [part for pair in client.hgetall(key).items() for part in pair],
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": lambda key: [repr(client.xrange(key)).encode()],
    }
    for key in client.scan_iter():
        yield key
        kind = client.type(key)
        for value in [] if kind == b"none" else read[kind](key):  # it ran out meanwhile
            yield value
            with suppress(zstandard.ZstdError):
                yield zstandard.ZstdDecompressor().decompress(value, 1 << 24)


def test_pictures_and_loras_reach_a_worker_by_the_bucket_and_give_the_bytes_of_a_folder(
    farm: Farm, lines: list[dict[str, Any]], bucket: str, object_store: BreakableStore
) -> None:
    farm.python = warm_painter
    place = f"s3://{bucket}/sets/mixed"
    keys: dict[str, Any] = {
        "model": "shapes",
        "settings": {"num_inference_steps": 3},
        "layout": "webdataset",
        "shard_size": 4,
    }

    def begin(name: str, root: str | Path) -> None:
        options = {"batch_size": SLOTS, "device": "cpu", "output_root": root}
        farm.start_worker(name, "--concurrency", "1", **options)

    begin("far", f"s3://{bucket}/sets")
    job_id = farm.submit(lines, name="mixed", output=place, **keys)
    assert not list(farm.folder.glob("*/.imagemill"))
    for name in ("square.png", "mask.png", "striped.safetensors"):
        (farm.folder / name).rename(farm.folder / f"away-{name}")  # the bucket has them
    status = farm.finished(job_id)
    assert (status.outcome, status.done, status.failed) == ("complete", len(lines), 0)
    stored = [*held(farm.client)]

    for name in ("square.png", "mask.png", "striped.safetensors"):
        (farm.folder / f"away-{name}").rename(farm.folder / name)
    begin("near", farm.folder)
    near = farm.submit(lines, name="near", output=str(farm.folder / "out"), **keys)
    farm.finished(near)
    far = Output.at(place)
    assert pictures(far) == pictures(Output(farm.folder / "out"))
    assert len(pictures(far)) == len(lines)

    names = sorted(far.store.files_below(""))
    assert {"00000.tar", "00001.parquet", "job.json", "README.md"} <= {*names}
    assert not [name for name in names if "uploads" in name or "probe" in name]
    texts = [far.store.read(name) for name in names]
    logs = [(farm.folder / f"{name}.log").read_bytes() for name in ("far", "near")]
    for secret in (object_store.secret.encode(), object_store.key_id.encode()):
        for text in (*stored, *texts, *logs):
            assert secret not in text


def test_a_place_in_a_bucket_confines_what_is_submitted(farm: Farm, bucket: str) -> None:
    inside = Settings(output_root=f"s3://{bucket}/sets")
    file = farm.manifest(2, output=f"s3://{bucket}/sets/a", layout="webdataset")
    assert prepare(file, inside).output.label == f"s3://{bucket}/sets/a"
    for output in (f"s3://{bucket}/sets-2", f"s3://{bucket}", f"gs://{bucket}/sets/a"):
        file = farm.manifest(2, output=output, layout="webdataset")
        with pytest.raises(OutputError, match=r"lies outside IMAGEMILL_OUTPUT_ROOT = s3://"):
            prepare(file, inside)
    file = farm.manifest(2)
    with pytest.raises(OutputError, match=r"lies outside IMAGEMILL_OUTPUT_ROOT = s3://"):
        prepare(file, inside)
    file = farm.manifest(2, output=f"s3://{bucket}/sets/a", layout="webdataset")
    with pytest.raises(OutputError, match=r"lies outside IMAGEMILL_OUTPUT_ROOT = /"):
        prepare(file, Settings(output_root=str(farm.folder)))


def test_run_and_a_worker_are_confined_to_a_place_in_a_bucket(
    farm: Farm, bucket: str, object_store: BreakableStore
) -> None:
    keys = {"layout": "webdataset", "name": "cats"}
    file = farm.manifest(4, output=f"s3://{bucket}/sets/a", **keys)
    ran = farm.command("run", file, output_root=f"s3://{bucket}/sets")
    assert ran.returncode == 0, ran.stderr
    assert len(pictures(Output.at(f"s3://{bucket}/sets/a"))) == 4
    assert object_store.secret not in ran.stdout + ran.stderr
    file = farm.manifest(4, output=f"s3://{bucket}/other", **keys)
    refused = farm.command("run", file, output_root=f"s3://{bucket}/sets")
    assert refused.returncode == 2
    assert f"lies outside IMAGEMILL_OUTPUT_ROOT = s3://{bucket}/sets" in refused.stderr


def test_a_worker_refuses_a_job_outside_of_its_place_in_a_bucket_and_says_so(farm: Farm, bucket: str) -> None:
    farm.start_worker("w1", output_root=f"s3://{bucket}/mine")
    job_id = farm.submit(4, output=f"s3://{bucket}/theirs", layout="webdataset")
    wait_until(lambda: "IMAGEMILL_OUTPUT_ROOT" in farm.log("w1"), "the worker refuses the job")
    assert farm.status(job_id).done == 0
    assert [*Output.at(f"s3://{bucket}/theirs").shards()] == []
