"""What other programs read of a `layout: webdataset`: datasets, webdataset, pyarrow and tar itself."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from jobs.entry import Entry
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.shard_table import shard_table
from jobs.request import ImageRequest
from worker.engine.renderer import RenderedBy
from worker.shard.store import ShardStore

RENDERED_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"torch": "2.13.0"})
CAPTIONS = [
    "a red fox",
    "",
    "ein Fuchs, été, 狐狸 🦊👩‍👩‍👧",
    "say \"yes\", 'no'; a\\b, {c}",
    "two\nlines\r\nand a\ttab ",
    "  spaces around  ",
    "x" * 10_000,
    "\u2028 separators \u0085 and \x1f controls",
]
FAILED = 3
"""The place of the image that failed, in the first of two shards."""


def request(number: int, **settings: Any) -> ImageRequest:
    given = {"prompt": CAPTIONS[number], "height": 16, "width": 8, "model": "m", "revision": "r"} | settings
    return ImageRequest(seed=2**62 + number, **given)


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (16, 8, 3), dtype=np.uint8)


def write(output: Output, shard: int, entries: list[Entry], failed: tuple[int, ...] = ()) -> None:
    names = list(dict.fromkeys(name for entry in entries for name in entry.columns))
    store = ShardStore(
        output, shard, "1", entries, job_id="foxes-1", column_names=names, adopt_below=0, layout="webdataset"
    )  # fmt: skip
    failures = []
    for position, entry in enumerate(entries):
        if position in failed:
            failures.append(
                Failure(
                    shard=shard, position=position, entry=entry, reason="black, twice", job_id="foxes-1",
                    command="render it",
                )
            )  # fmt: skip
        else:
            flagged = "one flat colour" if position == 2 else None
            store.save(position, pixels(entry.request.seed % 1000), RENDERED_BY, flagged)
    assert store.commit(failures)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(tmp_path / "out")
    output.prepare()
    lines = [Entry.of(request=request(n), id=f"no {n}", columns={"n": n}) for n in range(len(CAPTIONS))]
    write(output, 0, lines[:6], failed=(FAILED,))
    write(output, 1, lines[6:])
    return output


@pytest.fixture
def captions() -> list[str]:
    return [caption for number, caption in enumerate(CAPTIONS) if number != FAILED]


def test_datasets_streams_the_tars(output: Output, captions: list[str]) -> None:
    files = [str(output.path / f"0000{shard}.tar") for shard in (0, 1)]
    stream = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    samples = list(stream)
    assert [sample["txt"] for sample in samples] == captions
    records = [record for shard in (0, 1) for record in output.records(shard)]
    for sample, record in zip(samples, records, strict=True):
        assert {name: sample["json"][name] for name in ("image_id", "seed", "id", "n", "text")} == {
            name: record[name] for name in ("image_id", "seed", "id", "n", "text")
        }
        assert f"{sample['__key__']}.png" == record["file_name"]
        assert np.array_equal(np.asarray(sample["png"]), pixels(record["seed"] % 1000))


def test_webdataset_reads_the_tars(output: Output, captions: list[str]) -> None:
    urls = str(output.path / "{00000..00001}.tar")
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["txt"] for sample in samples] == captions
    assert [sample["json"] for sample in samples] == [record for n in (0, 1) for record in output.records(n)]
    for sample in samples:
        assert np.array_equal(sample["png"], pixels(sample["json"]["seed"] % 1000))


def test_tar_extracts_what_the_records_say(output: Output, tmp_path: Path) -> None:
    subprocess.run(["tar", "-xf", output.path / "00000.tar", "-C", tmp_path], check=True)
    for record in output.records(0):
        key = record["file_name"].partition(".")[0]
        assert (tmp_path / f"{key}.txt").read_bytes().decode() == record["text"]
        assert json.loads((tmp_path / f"{key}.json").read_text()) == record
        assert Image.open(tmp_path / record["file_name"]).size == (8, 16)


def test_pyarrow_reads_every_setting_and_the_failures(output: Output) -> None:
    table = pq.read_table(output.path / "00000.parquet").to_pylist()
    assert [line["caption"] for line in table] == CAPTIONS[:6]
    assert [line["key"] for line in table] == [f"00000000{n}" for n in range(6)]
    for line, record in zip(
        [one for one in table if one["status"] == "success"], output.records(0), strict=True
    ):
        same = record.keys() - {"file_name", "text", "rendered_versions"}
        assert {name: line[name] for name in same} == {name: record[name] for name in same}
        assert json.loads(line["rendered_versions"]) == record["rendered_versions"]
        assert (line["error_message"], line["command"]) == (None, None)
    failed, failure = table[FAILED], output.shard_failures(0)[0]
    assert (failed["status"], failed["error_message"]) == ("failed_to_render", "black, twice")
    assert (failed["command"], failed["sha256"], failed["rendered_rows"]) == ("render it", None, None)
    assert (failed["image_id"], failed["seed"], failed["n"]) == (failure.image_id, 2**62 + 3, FAILED)
    assert (failed["width"], failed["height"], failed["id"]) == (8, 16, "no 3")


def test_parquets_of_a_job_are_read_as_one(output: Output) -> None:
    lines = [
        Entry.of(request=request(0), columns={"n": None}),
        Entry.of(request=request(1), columns={"n": None}),
    ]
    write(output, 2, lines, failed=(0, 1))
    files = [str(output.path / f"0000{shard}.parquet") for shard in (2, 1, 0)]
    for order in (files, files[::-1]):
        loaded = datasets.load_dataset("parquet", data_files=order, split="train")
        assert sorted(loaded["status"]) == ["failed_to_render"] * 3 + ["success"] * 7
        assert pq.ParquetDataset(order).read().num_rows == 10


def test_every_way_of_rendering_has_a_column_of_fixed_type(output: Output) -> None:
    (record, *_), empty = output.records(0), shard_table(str, [], []).column_names
    assert {name for name in record if name.startswith("rendered_")} <= set(empty)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None], [1, None]),
        ([1, 2.5], [1.0, 2.5]),
        ([2**60 + 1, 0.5], ["1152921504606846977", "0.5"]),
        ([1, "one"], ["1", "one"]),
        ([True, 1], ["true", "1"]),
        ([[1], [None, 2]], [[1], [None, 2]]),
        ([[1], ["a"]], [["1"], ["a"]]),
        ([[], {}], ["[]", "{}"]),
        ([{}, None], ["{}", None]),
        ([{"a": 1}, {"b": "é"}], [{"a": 1, "b": None}, {"a": None, "b": "é"}]),
        ([{"a": {}}, {"a": {}}], [{"a": "{}"}, {"a": "{}"}]),
    ],
    ids=str,
)
def test_a_users_column_has_the_type_of_its_values_or_is_text(
    output: Output, values: list[Any], message: list[Any]
) -> None:
    lines = [Entry.of(request=request(n), columns={"mine": value}) for n, value in enumerate(values)]
    write(output, 2, lines, failed=(1,))
    assert pq.read_table(output.path / "00002.parquet")["mine"].to_pylist() == message
    assert [record["mine"] for record in output.records(2)] == values[:1]
    assert [failure.entry.columns["mine"] for failure in output.shard_failures(2)] == values[1:]


def test_a_users_column_of_img2datasets_names_is_there_under_another(output: Output) -> None:
    columns = {"key": "k", "status": "s", "column_key": "c", "other": "o"}
    lines = [Entry.of(request=request(n), columns=columns) for n in (0, 1)]
    write(output, 2, lines, failed=(1,))
    for line in pq.read_table(output.path / "00002.parquet").to_pylist():
        assert line["key"].startswith("00002000")
        assert (line["column_key"], line["column_status"], line["column_column_key"]) == ("k", "s", "c")
        assert line["other"] == "o"


@pytest.mark.parametrize(("image_format", "ending"), [("jpeg", "jpg"), ("webp", "webp")])
def test_jpeg_and_webp_are_samples_too(output: Output, image_format: str, ending: str) -> None:
    write(output, 2, [Entry.of(request=request(0, image_format=image_format))])
    (sample,) = webdataset.WebDataset(str(output.path / "00002.tar"), shardshuffle=False)
    assert sample.keys() >= {ending, "txt", "json"}
    assert Image.open(io.BytesIO(sample[ending])).size == (8, 16)
