"""Every command that names an output, on one in a bucket: real workers, real Redis, an S3 on loopback."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.output.output import Output
from producer.embedded_redis import EmbeddedRedis
from tests.farm import Farm, Server
from tests.object_store.breakable_store import BreakableStore
from tests.trouble import HANGING_FORWARD, TROUBLED
from tests.waiting import WaitUntil


class BucketFarm(Farm):
    """A farm whose workers write below s3://BUCKET/sets."""

    def __init__(self, folder: Path, server: Server, store: BreakableStore) -> None:
        super().__init__(folder, server)
        self.store, self.root = store, f"s3://farm-{secrets.token_hex(8)}/sets"
        store.make_bucket(self.root.split("/")[2])

    def surroundings(self) -> dict[str, str]:
        """Where the store is, and where its outputs' spools are."""
        return {**self.store.environment(), "XDG_CACHE_HOME": str(self.folder / "cache")}

    def environment(self, **settings: object) -> dict[str, str]:
        own = {"output_root": self.root} | settings
        hanging = {HANGING_FORWARD: str(self.away)}
        return {**super().environment(**own), **self.surroundings(), **TROUBLED, **hanging}

    @property
    def away(self) -> Path:
        """While there is this file, an image whose prompt begins with "!hang" does not end."""
        return self.folder / "away"

    def rendered(self, name: str, prompts: list[object] | int = 20, **keys: object) -> Output:
        """A new output, which a finished job of the same name has."""
        place = f"{self.root}/{name}"
        keys = {"name": name, "output": place, "layout": "webdataset", **keys}
        assert self.command("submit", self.manifest(prompts, **keys), "--wait").returncode in {0, 1}
        return Output.at(place)

    def told(self, *arguments: str | Path, **settings: object) -> tuple[int, Any]:
        """Exit status and JSON of a command."""
        done = self.command(*arguments, "--json", **settings)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def refused(self, *arguments: str | Path, **settings: object) -> str:
        """What a command says that refuses, in one line."""
        done = self.command(*arguments, **settings)
        assert (done.returncode, done.stdout) == (2, ""), done.stdout
        assert len(done.stderr.splitlines()) == 1 or "Usage" in done.stderr, done.stderr
        return done.stderr


@pytest.fixture(scope="module")
def module_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketFarm]:
    folder = tmp_path_factory.mktemp("farm")
    with EmbeddedRedis(folder=folder / "redis") as server, BreakableStore() as store:
        farm = BucketFarm(folder, server, store)
        farm.start_worker(batch_size=16)
        yield farm
        farm.stop()


@pytest.fixture
def farm(module_farm: BucketFarm, monkeypatch: pytest.MonkeyPatch) -> BucketFarm:
    """A worker of the stand-in model, and a bucket."""
    for name, value in module_farm.surroundings().items():
        monkeypatch.setenv(name, value)
    return module_farm


def held(output: Output) -> list[str]:
    """The image_ids of all records, each of which has its picture."""
    found = []
    for shard in output.shards():
        records = list(output.records(shard))
        pictures = dict(output.pictures(shard, [record["file_name"] for record in records]))
        assert pictures.keys() == {record["file_name"] for record in records}
        found += [record["image_id"] for record in records]
    return found


def test_a_job_is_submitted_watched_planned_and_examined(farm: BucketFarm) -> None:
    output = farm.rendered("whole")
    assert len({*held(output)}) == len(held(output)) == 20
    _, job = farm.told("status", "whole-1")
    assert (job["state"], job["output"], job["done"]) == ("finished", output.label, 20)
    done = farm.command("watch", "whole-1")
    assert done.returncode == 0
    assert output.label in done.stdout
    status, plan = farm.told("plan", "whole.yaml")
    assert (status, plan["output"], plan["new"], plan["unchanged"]) == (0, output.label, 0, 20)
    status, found = farm.told("doctor", output.label)
    assert (status, found["problems"], found["images"], found["shards"]) == (0, [], 20, 3)
    assert farm.told("submit", "whole.yaml", "--wait")[0] == 0
    assert len(held(output)) == 20


def test_two_jobs_for_one_output_and_one_outside_of_the_root_are_refused(farm: BucketFarm) -> None:
    keys = {"output": f"{farm.root}/twice", "layout": "webdataset"}
    farm.away.touch()
    one, other = (farm.manifest(["!hang", "fox"], name=name, **keys) for name in ("one", "other"))
    assert f"both write to {farm.root}/twice, one job at a time" in farm.refused("submit", one, other)
    assert farm.command("submit", one).returncode == 0
    assert "one-1" in farm.refused("submit", other)
    assert farm.command("cancel", "one-1").returncode == 0
    farm.away.unlink()
    farm.finished("one-1")
    outside = farm.manifest(4, name="outside", output="s3://elsewhere/sets", layout="webdataset")
    assert f"lies outside IMAGEMILL_OUTPUT_ROOT = {farm.root}" in farm.refused("submit", outside)


def test_a_cancelled_job_leaves_whole_shards_and_the_next_renders_the_rest(
    farm: BucketFarm, wait_until: WaitUntil
) -> None:
    place = f"{farm.root}/cancelled"
    prompts = [*(f"fox {n}" for n in range(28)), "!hang", *(f"owl {n}" for n in range(3))]
    farm.away.touch()
    file = farm.manifest(prompts, name="cancelled", output=place, layout="webdataset", priority=1)
    farm.command("submit", file)
    wait_until(lambda: farm.status("cancelled-1").done >= 8, "a shard is done")
    farm.command("pause", "cancelled-1")
    assert farm.command("cancel", "cancelled-1").returncode == 0
    farm.away.unlink()
    farm.finished("cancelled-1")
    output = Output.at(place)
    assert len(held(output)) in (8, 16, 24)
    assert farm.told("submit", file, "--wait")[0] == 0
    assert len({*held(output)}) == len(held(output)) == 32
    assert farm.told("doctor", place)[1]["problems"] == []


def test_what_a_repair_sets_aside_comes_back_and_what_failed_is_retried(farm: BucketFarm) -> None:
    output = farm.rendered("mended", [*(f"fox {n}" for n in range(15)), "!raise"])
    assert farm.told("doctor", output.label)[0] == 0
    images = held(output)
    name = next(iter(output.records(1)))["file_name"]
    [(_, picture)] = output.pictures(1, [name])
    tar = output.store.read("00001.tar")
    output.store.replace("00001.tar", tar.replace(picture, picture[:-20] + b"y" + picture[-19:]))
    output.store.remove("00000.parquet")
    status, found = farm.told("doctor", output.label)
    assert (status, {one["file"] for one in found["problems"]} - {".imagemill/jobs/mended-1.json"}) == (
        1, {f"00001.tar/{name}", "00000.parquet"}
    )  # fmt: skip
    _, found = farm.told("doctor", output.label, "--repair")
    # What had failed goes back with what was set aside.
    assert (found["sent_back"], found["quarantine"]) == (
        {"mended-1": 2}, f"{output.label}/.imagemill/quarantine/1"
    )  # fmt: skip
    farm.finished("mended-1")
    assert sorted(held(output)) == sorted(images)
    status, found = farm.told("doctor", output.label)
    assert (status, found["problems"], found["failed"]) == (0, [], 1)
    assert farm.command("retry", "mended-1").returncode == 0
    assert farm.finished("mended-1").failed == 1
    assert sorted(held(output)) == sorted(images)


def test_a_job_that_redis_lost_is_recovered(farm: BucketFarm) -> None:
    output = farm.rendered("lost")
    farm.client.flushall()
    output.store.remove("00001.tar")
    output.store.remove("00001.parquet")
    status, found = farm.told("recover", "lost.yaml")
    assert (status, found["job_id"], found["done"], found["left"]) == (0, "lost-1", 12, 8)
    farm.finished("lost-1")
    assert len({*held(output)}) == len(held(output)) == 20


def test_images_are_rendered_again_beside_the_output_and_nothing_is_left(farm: BucketFarm) -> None:
    output = farm.rendered("verified")
    before = sorted(output.store.files_below(""))
    status, found = farm.told("verify", output.label, "--sample", "all")
    assert (status, found["equal_bytes"], found["output"]) == (0, 20, output.label)
    assert farm.told("verify", output.label, "--sample", "5", "--into", f"{farm.root}/room")[0] == 0
    assert sorted(output.store.files_below("")) == before
    assert not [name for name in Output.at(farm.root).store.files_below("") if "verify-" in name]
    said = farm.refused("verify", output.label, "--into", "s3://elsewhere/sets")
    assert "lies outside IMAGEMILL_OUTPUT_ROOT" in said
    assert "is in a bucket: name a folder of this machine" in farm.refused(
        "verify", output.label, "--inputs", "s3://elsewhere/sets"
    )


def test_a_copy_in_a_bucket_and_a_folder_hold_the_same(farm: BucketFarm) -> None:
    output = farm.rendered("source")
    for target in (f"{farm.root}/copy", str(farm.folder / "copy")):
        status, found = farm.told("export", output.label, target, "--to", "webdataset", "--shard-size", "6")
        assert (status, found["images"], found["shards"], found["target"]) == (0, 20, 4, target)
    copies = [Output.at(place) for place in (f"{farm.root}/copy", str(farm.folder / "copy"))]
    assert held(copies[0]) == held(copies[1]) == held(output)
    assert farm.told("doctor", f"{farm.root}/copy")[1]["problems"] == []
    assert "writes a folder" in farm.refused("export", output.label, f"{farm.root}/flat", "--to", "flat")


def test_a_store_that_cannot_be_reached_or_refuses_is_told_in_a_line(farm: BucketFarm) -> None:
    farm.rendered("told", 4)
    place = f"{farm.root}/told"
    wrong = farm.environment() | {"AWS_SECRET_ACCESS_KEY": "", "AWS_ACCESS_KEY_ID": "OTHER"}
    for arguments in (
        ("doctor", place),
        ("plan", "told.yaml"),
        ("verify", place),
        ("export", place, "x", "--to", "flat"),
    ):
        done = farm.run_in(wrong, *arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert "credentials" in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "s3://B!: 'B!' is no bucket's name" in farm.refused("doctor", "s3://B!")
