"""`imagemill verify` with real workers: images rendered again through the queue, and nothing left."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from jobs.output.metadata import request_of_record
from jobs.output.output import Output
from jobs.output.picture_file import read_picture
from jobs.settings import Settings
from producer.verify.verify import Options
from producer.verify.verify import verify as verify_in_process
from tests.farm import Farm
from tests.trouble import TROUBLED
from tests.waiting import LONGEST, WaitUntil
from tests.warm_python import BIN


@pytest.fixture(scope="module")
def farm(shared_farm: Farm) -> Farm:
    """A worker of the stand-in model."""
    shared_farm.start_worker(batch_size=16)
    return shared_farm


def rendered(farm: Farm, name: str, prompts: list[object] | int = 20, **keys: object) -> Path:
    """A new output of a finished job."""
    folder = farm.folder / name
    farm.finished(farm.submit(prompts, name=name, output=str(folder), **keys))
    return folder


def verify(farm: Farm, output: Path, *options: str | Path, **settings: object) -> tuple[int, dict[str, Any]]:
    done = farm.command("verify", output, "--json", *options, **settings)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every entry with its size and the time of its last change, in nanoseconds."""
    found = {path: path.stat() for path in (folder, *folder.rglob("*"))}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def end(farm: Farm, name: str) -> None:
    """Ends a worker in good order."""
    os.kill(farm.workers[name].pid, signal.SIGTERM)
    farm.workers[name].wait(LONGEST)


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".verify")]


def repainted(picture: Path) -> tuple[int, int]:
    """Changes one pixel of a picture, and keeps what its file says; returns where."""
    data = picture.read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
        pixels = np.asarray(opened).copy()
    pixels[9, 4, 2] ^= 1
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    picture.write_bytes(file.getvalue())
    assert read_picture(file.getvalue()).width == 64
    return 4, 9


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_an_output_is_equal_to_itself_and_is_only_read(farm: Farm, layout: str) -> None:
    output = rendered(farm, f"equal-{layout}", layout=layout)
    before = listing(output)
    status, found = verify(farm, output, "--sample", "all")
    assert (status, found["equal_bytes"], found["drawn"]) == (0, 20, 20)
    status, first = verify(farm, output, "--sample", "6", "--seed", "7")
    assert (status, first["equal_bytes"], first["seed"]) == (0, 6, 7)
    assert listing(output) == before
    assert left_over(farm.folder) == []


def test_jpeg_and_webp_are_compared_by_their_bytes(farm: Farm) -> None:
    rendered(farm, "as-both", 6, image_format="jpeg", image_quality=80)
    output = rendered(farm, "as-both", 6, image_format="webp", image_quality=80)
    status, found = verify(farm, output, "--sample", "all")
    assert (status, found["equal_bytes"]) == (0, 12)


def test_a_picture_of_which_one_pixel_was_changed_is_named(farm: Farm) -> None:
    output = rendered(farm, "one-pixel")
    x, y = repainted(output / "00001/000010003.png")
    done = farm.command("verify", output, "--sample", "all")
    assert done.returncode == 1, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("00001/000010003.png: ")]
    assert f"largest difference 1 of 255 at x={x}, y={y} (blue); 1 pixel of it differ" in line
    assert "its file is not as it was written" in line
    last = done.stdout.splitlines()[-1]
    assert last == f"{output}: 20 of 20 images rendered again: 19 equal in every byte, 1 differ"


def test_other_hardware_is_seen_in_the_records_and_compared_by_pixels(farm: Farm) -> None:
    output = rendered(farm, "elsewhere", 4)
    lines = output / "00000/metadata.jsonl"
    lines.write_text(
        lines.read_text().replace('"rendered_device": "cpu"', '"rendered_device": "NVIDIA H200"')
    )
    repainted(output / "00000/000000002.png")
    because = ["device: NVIDIA H200 then, cpu now"]
    status, found = verify(farm, output, "--sample", "all")
    assert (status, found["equal_pixels"], found["bytes_not_promised"][0]["because"]) == (1, 3, because)
    [differing] = found["differing"]
    assert differing["largest"] == {"difference": 1, "x": 4, "y": 9, "channel": "blue"}
    status, found = verify(farm, output, "--sample", "all", "--tolerance", "1")
    assert (status, found["equal_pixels"], found["largest_tolerated"]) == (0, 4, 1)


def test_slots_are_those_of_the_records_and_not_what_another_job_measured(farm: Farm) -> None:
    output = rendered(farm, "sixteen", 4)
    lines = output / "00000/metadata.jsonl"
    lines.write_text(lines.read_text().replace('"rendered_rows": 16', '"rendered_rows": 12'))
    farm.start_worker("unset")  # it takes the slots that an output was begun with
    end(farm, "w1")
    try:
        status, found = verify(farm, output, "--sample", "all")
        assert (status, found["equal_bytes"], found["bytes_not_promised"]) == (0, 4, [])
    finally:
        farm.start_worker(batch_size=16)
        end(farm, "unset")


def test_inputs_are_found_by_hash_in_the_output_or_where_they_are_named(farm: Farm) -> None:
    inputs = farm.folder / "pictures"
    inputs.mkdir()
    Image.new("RGB", (64, 64), "red").save(inputs / "red.png")
    np.save(inputs / "first.npy", np.zeros((4, 8, 8), np.float32))
    lines = [
        {"prompt": "a fox", "image": str(inputs / "red.png")},
        {"prompt": "a fox", "init_latents": str(inputs / "first.npy")},
    ]
    output = rendered(farm, "with-inputs", list(lines), model="instant")
    status, found = verify(farm, output, "--sample", "all")
    assert (status, found["equal_bytes"]) == (0, 2), found

    for kept in (output / ".imagemill/inputs").rglob("*"):
        if kept.is_file():
            kept.unlink()
    status, found = verify(farm, output, "--sample", "all")
    assert (status, len(found["not_compared"])) == (2, 2)
    assert all("--inputs FOLDER" in one["why"] for one in found["not_compared"])
    status, found = verify(farm, output, "--sample", "all", "--inputs", inputs)
    assert (status, found["equal_bytes"], len(found["not_compared"])) == (2, 1, 1)
    assert "its initial latents" in found["not_compared"][0]["why"]


def test_a_changed_line_and_a_missing_picture_are_not_compared_and_the_others_are(farm: Farm) -> None:
    output = rendered(farm, "damaged", 5)
    lines = output / "00000/metadata.jsonl"
    first, *others = lines.read_text().splitlines(keepends=True)
    record = json.loads(first)
    lines.write_text(json.dumps(record | {"num_inference_steps": 9}) + "\n" + "".join(others))
    (output / "00000/000000003.png").unlink()
    status, found = verify(farm, output, "--sample", "all")
    assert (status, found["equal_bytes"]) == (2, 3)
    why = {one["file"]: one["why"] for one in found["not_compared"]}
    assert "num_inference_steps is 9 there and 4 in its picture" in why["00000/000000000.png"]
    assert "its picture is not there" in why["00000/000000003.png"]


def test_a_model_that_is_not_there_costs_one_line(farm: Farm) -> None:
    output = rendered(farm, "other-version", 5)
    lines = output / "00000/metadata.jsonl"
    changed = []
    for line in lines.read_text().splitlines():
        record = json.loads(line) | {"revision": "instant-0"}
        changed.append(json.dumps(record | {"image_id": request_of_record(record).image_id}) + "\n")
    lines.write_text("".join(changed))
    done = farm.command("verify", output, "--sample", "all")
    assert done.returncode == 2
    [line] = [line for line in done.stdout.splitlines() if "not compared: " in line]
    assert "and 4 more: not compared: its model, instant at instant-0, is not of this imagemill" in line


def test_workers_that_may_not_write_there_say_so_and_another_folder_helps(farm: Farm) -> None:
    output = rendered(farm, "inside", 3)
    outside = farm.folder.parent / "elsewhere"
    outside.mkdir()
    status, found = verify(farm, output, "--into", outside, output_root=farm.folder.parent)
    assert status == 2
    assert {"lies outside IMAGEMILL_OUTPUT_ROOT" in one["why"] for one in found["not_compared"]} == {True}
    assert list(outside.iterdir()) == []
    inner = farm.folder / "inner"
    inner.mkdir()
    assert verify(farm, output, "--into", inner)[0] == 0
    assert list(inner.iterdir()) == []
    done = farm.command("verify", output, "--into", outside)
    assert done.returncode == 2
    assert "--into FOLDER names where" in done.stderr


def test_wrong_options_are_refused(farm: Farm) -> None:
    output = rendered(farm, "options", 1)
    for options in (("--sample", "0"), ("--sample", "some"), ("--tolerance", "256"), ("--seed", "-1")):
        assert farm.command("verify", output, *options).returncode == 2
    empty = farm.folder / "empty"
    empty.mkdir()
    done = farm.command("verify", empty)
    assert (done.returncode, "holds no image" in done.stderr) == (2, True)


class Alone:
    """A farm whose commands find no Redis, and have temporary files of their own."""

    def __init__(self, farm: Farm) -> None:
        self.farm, self.temporary = farm, farm.folder / "tmp"
        self.temporary.mkdir()
        unset = ("IMAGEMILL_REDIS_URL", "IMAGEMILL_OUTPUT_ROOT")
        kept = {name: value for name, value in farm.environment().items() if name not in unset}
        cache = {"XDG_CACHE_HOME": str(farm.folder / "cache"), "TMPDIR": str(self.temporary)}
        self.environment = kept | TROUBLED | cache


@pytest.fixture
def alone(farm: Farm) -> Iterator[Alone]:
    yield Alone(farm)


def test_without_a_redis_verify_has_one_and_a_worker_of_its_own(alone: Alone) -> None:
    farm = alone.farm
    output = farm.folder / "own"
    manifest = farm.manifest(["a fox", "!raise", "a hare"], name="own", output=str(output))
    assert farm.run_in(alone.environment, "run", manifest, "--gpus", "none").returncode == 1
    before = listing(output)
    done = farm.run_in(alone.environment, "verify", output, "--sample", "all", "--gpus", "none", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["equal_bytes"], found["failed_left_out"]) == (0, 2, 1), done.stderr
    assert listing(output) == before
    assert list(alone.temporary.glob(".verify*")) == list(alone.temporary.glob("imagemill-redis*")) == []


def test_ctrl_c_leaves_neither_files_nor_a_job(farm: Farm, wait_until: WaitUntil) -> None:
    output = rendered(farm, "stopped", 40)
    farm.start_worker("slow", batch_size=16, instant_seconds=1.0)
    end(farm, "w1")
    try:
        before = listing(output)
        known = {*farm.ledger.job_ids()}
        process = subprocess.Popen(
            [BIN / "imagemill", "verify", output, "--sample", "all"],
            env=farm.environment(), cwd=farm.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_until(lambda: {*farm.ledger.job_ids()} - known, "its job is there")
        [job_id] = {*farm.ledger.job_ids()} - known
        wait_until(lambda: farm.status(job_id).workers, "a worker holds a shard")
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=LONGEST)
        assert process.returncode == 130
        assert err.endswith(
            f"error: {output}: stopped before the end; it is as it was, and nothing else is left\n"
        )
        assert (farm.status(job_id).state, farm.status(job_id).outcome) == ("finished", "cancelled")
        assert (left_over(farm.folder), listing(output)) == ([], before)
    finally:
        farm.start_worker(batch_size=16)
        end(farm, "slow")


def test_all_images_of_an_output_are_rendered_round_by_round(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = rendered(farm, "rounds", 20)
    monkeypatch.setattr("producer.verify.verify.ROUND", 8)
    known = {*farm.ledger.job_ids()}
    settings = Settings(redis_url=SecretStr(farm.server.url))
    found = verify_in_process(Output(output), settings, Options(count=None, seed=1), quiet=True)
    assert (found.exit_code, found.equal_bytes, found.counts.drawn) == (0, 20, 20)
    assert sorted(farm.status(job_id).total for job_id in {*farm.ledger.job_ids()} - known) == [4, 8, 8]


def test_a_worker_that_dies_meanwhile_is_waited_for(farm: Farm, wait_until: WaitUntil) -> None:
    output = rendered(farm, "killed", 40)
    farm.start_worker("dying", batch_size=16, instant_seconds=5.0)
    end(farm, "w1")
    known = {*farm.ledger.job_ids()}
    process = subprocess.Popen(
        [BIN / "imagemill", "verify", output, "--sample", "all"],
        env=farm.environment(), cwd=farm.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_until(lambda: {*farm.ledger.job_ids()} - known, "its job is there")
    [job_id] = {*farm.ledger.job_ids()} - known
    wait_until(lambda: farm.status(job_id).workers, "a worker holds a shard")
    for pid in (farm.workers["dying"].pid, farm.celery_pid("dying")):
        os.kill(pid, signal.SIGKILL)
    farm.workers["dying"].wait()
    farm.start_worker(batch_size=16)
    out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, "40 equal in every byte" in out) == (0, True), out + err
