"""Prompt files, pictures and LoRAs that a manifest names in a bucket."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.errors import ManifestError
from jobs.inputs.inputs import kept_name, kept_path
from jobs.location import BucketPlace
from jobs.output.bucket_store import BucketStore
from jobs.output.output import INPUTS, Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.job_queue import JobQueue
from producer.manifest.manifest import load_manifest
from producer.requests.prepared import prepare
from producer.submit.output_writes import keep_inputs
from producer.submit.submit import submit_manifest
from tests.farm import Farm
from tests.lora_files import random_lora


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def farm(tmp_path: Path, redis_server: EmbeddedRedis) -> Farm:
    return Farm(tmp_path, redis_server)


@pytest.fixture
def store(bucket: str, tmp_path: Path) -> BucketStore:
    """Two lists with a picture for each row, and a LoRA."""
    store = BucketStore(BucketPlace("s3", bucket, ""))
    for number, shade in enumerate((40, 90, 140)):
        contents = io.BytesIO()
        Image.new("RGB", (64, 64), (shade, 0, 0)).save(contents, "png")
        store.replace(f"pictures/{number}.png", contents.getvalue())
    row = {"prompt": "a red circle", "image": f"{store.label}/pictures/{{id}}.png"}
    for name, numbers in (("b", "2"), ("a", "01")):
        rows = "".join(json.dumps(row | {"id": number}) + "\n" for number in numbers)
        store.replace(f"lists/{name}.jsonl", rows.encode())
    random_lora(tmp_path / "striped.safetensors", 1)
    store.replace("striped.safetensors", (tmp_path / "striped.safetensors").read_bytes())
    return store


def keys(store: BucketStore, **others: Any) -> dict[str, Any]:
    return {
        "model": "shapes",
        "prompts_from": [f"{store.label}/lists/*.jsonl"],
        "settings": {"loras": [{"file": f"{store.label}/striped.safetensors"}]},
    } | others


def manifest(farm: Farm, **keys: Any) -> Path:
    """Writes a manifest with no prompts of its own."""
    file = farm.manifest(0, **keys)
    written = {name: value for name, value in json.loads(file.read_text()).items() if value != []}
    file.write_text(json.dumps(written))
    return file


def submit(farm: Farm, **keys: Any) -> None:
    submit_manifest(prepare(manifest(farm, **keys), Settings()), JobQueue.at(farm.server.url))


def texts(folder: Path) -> str:
    return "".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())


def test_lists_pictures_and_loras_are_read_from_a_bucket_and_kept_by_their_hash(
    farm: Farm, store: BucketStore, cache: Path
) -> None:
    submit(farm, **keys(store))
    prepared = prepare(farm.folder / "cats.yaml", Settings())
    entries = [entry for _, entry in prepared.entries()]
    assert [entry.id for entry in entries] == ["0", "1", "2"]
    hashes = {sha256 for entry in entries for sha256 in entry.inputs}
    assert len(hashes) == 4
    assert all(kept_path(farm.output / ".imagemill/inputs", sha256).is_file() for sha256 in hashes)
    kept = json.loads((farm.output / ".imagemill/jobs/cats-1.json").read_text())
    assert kept["prompts_from"][0]["file"] == f"{store.label}/lists/*.jsonl"
    assert set(kept["files"]) >= {f"{store.label}/lists/{name}.jsonl" for name in "ab"}
    assert str(cache) not in texts(farm.output)


@pytest.mark.parametrize("wrong", ["a row", "a picture", "a list", "a list's name"])
def test_a_message_names_the_place_in_the_bucket(
    farm: Farm, store: BucketStore, cache: Path, wrong: str
) -> None:
    said = {
        "a row": f"{store.label}/lists/a.jsonl:1",
        "a picture": f"{store.label}/pictures/1.png: there is no such file",
        "a list": f"{store.label}/lists/b.jsonl: holds no prompt",
        "a list's name": "matches no file",
    }
    if wrong == "a row":
        store.replace("lists/a.jsonl", b'{"prompt": 7}\n')
    elif wrong == "a picture":
        store.remove("pictures/1.png")
    elif wrong == "a list":
        store.replace("lists/b.jsonl", b"\n")
    pattern = f"{store.label}/{'nothing' if 'name' in wrong else 'lists'}/*.jsonl"
    ran = farm.command("submit", manifest(farm, **keys(store, prompts_from=[pattern])))
    assert ran.returncode == 2
    assert said[wrong] in ran.stderr
    assert str(cache) not in ran.stderr


def test_captions_one_per_file_have_their_ids_from_the_folder_on(farm: Farm, store: BucketStore) -> None:
    for name in ("10", "9", "deep/1"):
        store.replace(f"captions/{name}.txt", f"caption {name}".encode())
    source = {"file": f"{store.label}/captions", "one_per_file": True}
    prepared = prepare(manifest(farm, prompts_from=[source]), Settings())
    assert [entry.id for _, entry in prepared.entries()] == ["9", "10", "deep/1"]


def test_a_list_that_became_another_one_is_another_submission(farm: Farm, store: BucketStore) -> None:
    submit(farm, **keys(store))
    before = json.loads((farm.output / ".imagemill/jobs/cats-1.json").read_text())["files"]
    store.replace("lists/b.jsonl", b'{"prompt": "another"}\n')
    ran = farm.command("submit", manifest(farm, **keys(store)))
    assert ran.returncode == 2
    assert f"{store.label}/lists/b.jsonl" in ran.stderr
    assert f"{store.label}/lists/b.jsonl" in before


@pytest.mark.parametrize(
    ("named", "place"),
    [
        ({"model": "s3://bucket-1/model"}, "model"),
        ({"controlnet": "s3://bucket-1/edges"}, "controlnet"),
        ({"lora_folder": "s3://bucket-1/loras"}, "lora_folder"),
        ({"syntax": "dynamic", "wildcards": "s3://bucket-1/wildcards"}, "wildcards"),
    ],
)
def test_a_folder_in_a_bucket_is_refused_where_this_machine_reads_it(
    farm: Farm, named: dict[str, Any], place: str
) -> None:
    with pytest.raises(ManifestError, match=place) as refused:
        load_manifest(farm.manifest(1, **named))
    assert "\n" not in str(refused.value)


def test_files_of_a_bucket_are_not_left_where_they_are(farm: Farm, store: BucketStore) -> None:
    with pytest.raises(ManifestError, match=f"reference, and {store.label}/.* is in a bucket"):
        submit(farm, **keys(store, inputs="reference"))


def test_values_of_a_variable_are_read_from_a_bucket(farm: Farm, store: BucketStore) -> None:
    store.replace("colours.txt", b"red\nblue\n")
    line = {"prompt": "a {colour} fox", "variables": {"colour": f"{store.label}/colours.txt"}}
    prepared = prepare(farm.manifest([line]), Settings())
    assert [entry.request.prompt for _, entry in prepared.entries()] == ["a red fox", "a blue fox"]


def test_what_a_bucket_gave_is_run_examined_and_restored(farm: Farm, store: BucketStore) -> None:
    submit(farm, **keys(store, model="instant", settings={}))
    farm.start_worker()
    try:
        assert farm.finished("cats-1").outcome == "complete"
        assert len(Output(farm.output).held_image_ids()) == 3
        examined = farm.command("doctor", farm.output)
        assert examined.returncode == 0, examined.stdout + examined.stderr
        farm.client.flushall()
        restored = farm.command("recover", farm.folder / "cats.yaml")
        assert restored.returncode == 0, restored.stderr
        planned = farm.command("plan", farm.folder / "cats.yaml")
        assert "3" in planned.stdout
    finally:
        farm.stop()


def test_an_input_that_was_damaged_in_a_bucket_is_replaced(farm: Farm, store: BucketStore) -> None:
    line = {"prompt": "a fox", "image": f"{store.label}/pictures/0.png"}
    prepared = prepare(farm.manifest([line], output=f"{store.label}/out", layout="webdataset"), Settings())
    entries = [entry for _, entry in prepared.entries()]
    prepared.referenced(entries)
    [sha256] = entries[0].inputs
    kept = f"out/{INPUTS}/{kept_name(sha256)}"
    keep_inputs(prepared)
    whole = store.read(kept)
    store.replace(kept, whole[:-1])
    keep_inputs(prepared)
    assert store.read(kept) == whole
    written = store.modified(kept)
    keep_inputs(prepared)
    assert store.modified(kept) == written
