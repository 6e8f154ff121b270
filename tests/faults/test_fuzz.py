"""Whatever strangers write, manifests, prompt files, shards: a clear error or all it asks for, in time,
and no file but ours."""

from __future__ import annotations

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from hypothesis import assume
from hypothesis import strategies as st

from jobs.columns import column_trouble
from jobs.entry import Entry
from jobs.errors import ImagemillError, LedgerError, ManifestError
from jobs.ledger.shard import Shard, decode_shard, encode_shard
from jobs.models.models import BUILT_IN
from producer.manifest.latents import gather_latents
from producer.manifest.manifest import Manifest, load_manifest
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines
from producer.requests.expand import identify
from tests.faults import strategies as make
from tests.faults.bounds import bounded
from tests.faults.fuzzing import check_message, fuzz, images_asked
from worker.render import parse_request

INSTANT = BUILT_IN["instant"]

_MOST = 3000
"""Images that are looked at of a manifest that asks for more."""


def check_all_is_there(manifest: Manifest) -> None:
    """Expanding a manifest without prompt files gives what it asks for, each image once."""
    latents = gather_latents(manifest, INSTANT)
    doubles: list[Entry] = []
    asked = images_asked(manifest.to_json())
    found = list(islice(identify(manifest, INSTANT, doubles.append, latents=latents), _MOST))
    assert len(found) + len(doubles) == asked or len(found) == _MOST < asked
    assert len({image_id for image_id, _ in found}) == len(found)
    assert all(entry.request.image_id == image_id for image_id, entry in found)


@fuzz(130, text=make.manifest_texts())
def test_a_manifest_is_read_whole_or_refused_by_its_place(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "cats.yaml"
    file.write_bytes(text)
    with bounded(tmp_path / "nothing"):
        try:
            manifest = load_manifest(file)
        except ManifestError as error:
            check_message(error, f"{file}:")
            return
    assert Manifest.from_json(manifest.to_json()) == manifest
    with bounded(tmp_path / "nothing"):
        try:
            check_all_is_there(manifest)
        except ImagemillError as error:
            check_message(error, f"{file}:")


@fuzz(40, written=make.manifests())
def test_a_right_manifest_gives_every_image_it_asks_for(written: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "cats.yaml"
    file.write_text(yaml.safe_dump(written, allow_unicode=True), encoding="utf-8")
    try:
        manifest = load_manifest(file)
    except ManifestError as error:
        check_message(error, f"{file}:")
        assert "2**63-1" in str(error), error
        return
    check_all_is_there(manifest)
    whole = {**{"settings": {}, "prompts": []}, **written}
    whole["settings"] = {"images_per_prompt": 1, **whole["settings"]}
    assert images_asked(manifest.to_json()) == images_asked(whole)


Row = tuple[bytes, str | None]
"""A row of a prompt file and the prompt that it gives; None when it must be skipped."""


def _json_prompt(row: bytes) -> Row:
    return row, json.loads(row)["prompt"]


def _table_prompt(separator: str) -> Callable[[bytes], Row]:
    def row_prompt(row: bytes) -> Row:
        (cells,) = csv.reader(io.StringIO(row.decode(), newline=""), delimiter=separator)
        whole = len(cells) == 3 and re.fullmatch("[-+]?[0-9]{1,40}", cells[1])
        right = len(cells) == 3 and (cells[1] == "" or (whole and int(cells[1]) in range(8, 8200, 8)))
        return row, cells[0] if right else None

    return row_prompt


def _bad(row: bytes) -> Row:
    return row, None


_ROWS: dict[str, st.SearchStrategy[Row]] = {
    ".jsonl": make.JSON_ROWS.map(_json_prompt) | make.BAD_JSON_ROWS.map(_bad),
    ".csv": make.table_rows(",").map(_table_prompt(",")) | make.bad_table_rows(",").map(_bad),
    ".tsv": make.table_rows("\t").map(_table_prompt("\t")) | make.bad_table_rows("\t").map(_bad),
    ".txt": make.PLAIN_ROWS.map(lambda row: (row, row.decode().strip())) | make.BAD_PLAIN_ROWS.map(_bad),
}
_FILES = st.sampled_from(sorted(_ROWS)).flatmap(
    lambda suffix: st.tuples(
        st.just(suffix),
        st.lists(_ROWS[suffix] | make.BLANK_ROWS[suffix].map(_bad), max_size=40),
        st.sampled_from([b"\n", b"\r\n"]),
        st.booleans(),
    )
)


def source_manifest(file: Path, on_bad_row: str) -> Manifest:
    """A manifest that reads one prompt file, whatever it is."""
    source: dict[str, Any] = {"file": str(file), "empty_prompt": "unconditional"}
    if file.suffix in (".csv", ".tsv"):
        source["quoting"] = "minimal"
    if file.suffix != ".txt":
        source |= {"columns": ["split"], "ignore_others": file.suffix == ".parquet"}
    written = {"name": "cats", "model": "instant", "prompts_from": [source], "on_bad_row": on_bad_row}
    return Manifest.from_json(written)


@fuzz(120, file=_FILES)
def test_every_row_of_a_prompt_file_is_given_or_reported(
    file: tuple[str, list[Row], bytes, bool], tmp_path: Path
) -> None:
    suffix, rows, newline, marked = file
    separator = {".csv": b",", ".tsv": b"\t"}.get(suffix)
    header = [] if separator is None else [separator.join([b"prompt", b"height", b"split"])]
    path = tmp_path / f"prompts{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" * marked + newline.join([*header, *(row for row, _ in rows)]))
    starts, at = [], len(header) + 1
    for row, _ in rows:
        starts.append(at)
        at += len(re.findall(rb"\r\n|\n|\r", row)) + 1 if separator else 1
    placed = zip(rows, starts, strict=True)
    meant = [(start, prompt) for (row, prompt), start in placed if _counts(suffix, row)]
    reading, given = Reading(), list[str]()
    with bounded(tmp_path / "nothing"):
        try:
            given += [line.prompt for line in lines(source_manifest(path, "skip"), reading)]
        except ManifestError as error:
            check_message(error, f"{path}:")
            assert given == []
    assert len(given) + reading.skipped == len(meant)
    bad = [start for start, prompt in meant if prompt is None]
    if suffix != ".txt":  # of a .txt's, some flags are right
        assert given == [prompt for _, prompt in meant if prompt is not None]
        places = [one.removeprefix(f"{path}:").partition(":")[0] for one in reading.skipped_rows]
        assert list(map(int, places)) == bad[:20]
    with bounded(tmp_path / "nothing"):
        try:
            assert [line.prompt for line in lines(source_manifest(path, "stop"))] == given
        except ManifestError as error:
            check_message(error, f"{path}:")
            assert reading.skipped or not meant
        else:
            assert not reading.skipped


def _counts(suffix: str, row: bytes) -> bool:
    """Whether a row is one, and not a blank line or a remark."""
    if suffix in (".csv", ".tsv"):
        return row != b""
    text = row.decode(errors="replace").strip("\ufeff").strip()
    return text != "" and not (suffix == ".txt" and text.startswith("#"))


_CELLS: list[pa.DataType] = [
    pa.string(), pa.large_string(), pa.binary(), pa.int64(), pa.uint64(), pa.float32(), pa.bool_(),
    pa.date64(), pa.timestamp("s"), pa.timestamp("ns"), pa.duration("s"), pa.decimal128(38, 3),
    pa.list_(pa.int64()), pa.dictionary(pa.int8(), pa.string()), pa.null(), pa.struct([("a", pa.float64())]),
    pa.time64("ns"),
]  # fmt: skip
_TABLES = st.integers(0, 5).flatmap(
    lambda rows: st.fixed_dictionaries(
        {
            name: st.tuples(
                st.sampled_from(_CELLS),
                st.lists(st.binary(min_size=8, max_size=8), min_size=rows, max_size=rows),
            )
            for name in ("prompt", "height", "split")
        }
    )
)


def _column(kind: pa.DataType, cells: list[bytes]) -> pa.Array:
    """A column of whatever these bytes are in this type."""
    width = {"decimal128(38, 3)": 16, "float": 4}.get(str(kind), 8)
    try:
        if pa.types.is_primitive(kind) and not pa.types.is_boolean(kind):
            data = b"".join(cell * (width // 8 or 1) for cell in cells)
            return pa.Array.from_buffers(kind, len(cells), [None, pa.py_buffer(data)])
        return pa.array(
            [cell if pa.types.is_binary(kind) else cell.hex() for cell in cells], pa.binary()
        ).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None] * len(cells), kind)


@fuzz(20, table=_TABLES, noise=st.none() | st.integers(0, 2**31))
def test_every_row_of_a_parquet_is_given_or_reported(
    table: dict[str, tuple[pa.DataType, list[bytes]]], noise: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.parquet"
    made = pa.table({name: _column(*cells) for name, cells in table.items()})
    try:
        pq.write_table(made, path)
    except pa.ArrowException:
        assume(False)
    if noise is not None:
        data = bytearray(path.read_bytes())
        data[noise % len(data)] ^= 1 + noise % 255
        path.write_bytes(data)
    reading = Reading()
    with bounded(tmp_path / "nothing"):
        try:
            given = list(lines(source_manifest(path, "skip"), reading))
        except ManifestError as error:
            check_message(error, f"{path}:")
            nothing = reading.skipped == made.num_rows
            refused = "cannot be read as parquet" in str(error) or "leave it out of `columns`" in str(error)
            assert noise is not None or nothing or refused
            return
    assert noise is not None or len(given) + reading.skipped == made.num_rows


@fuzz(30, entries=make.entries(), first=st.integers(0, 2**31), gaps=st.booleans())
def test_any_entries_come_back_from_the_wire_as_they_were(
    entries: list[Entry], first: int, gaps: bool
) -> None:
    indices = [first + n * (2 if gaps else 1) for n in range(len(entries))]
    blob = encode_shard(Shard(indices, entries), make.BASE)
    assert decode_shard(blob, make.BASE, make.JOB) == Shard(indices, entries)


@st.composite
def _blobs(draw: st.DrawFn) -> bytes:
    """A shard as nobody packed it."""
    blob = encode_shard(Shard(range(7, 7 + 5), draw(make.entries())), make.BASE)
    head = json.loads(zstandard.decompress(blob))
    match draw(st.sampled_from(["head", "head", "head", "indices", "deep", "text", "bytes"])):
        case "bytes":
            return draw(make.damaged(blob))
        case "head":
            text = json.dumps(draw(make.twisted(head))).encode()
        case "indices":
            number = st.sampled_from([-1, 0, 1, 2, 3, 2**32 - 1, 2**32, 2**63, 10**30, 1.0, True, None, "1"])
            text = json.dumps(head | {"indices": draw(st.lists(number, max_size=5) | number)}).encode()
        case "deep":
            row = head["rows"][0] | {draw(st.sampled_from(["id", "columns", "height", "x"])): None}
            text = draw(make.nested(json.dumps(head | {"rows": [row]}))).encode()
        case _:
            text = draw(make.damaged(json.dumps(head).encode()))
    return zstandard.compress(text)


@fuzz(90, blob=_blobs())
def test_a_blob_that_was_changed_is_a_sound_shard_or_refused(blob: bytes, tmp_path: Path) -> None:
    with bounded(tmp_path):
        try:
            shard = decode_shard(blob, make.BASE, make.JOB)
        except LedgerError as error:
            assert "submit" in str(error)
            assert str(error).isprintable()
            return
    numbers = list(shard.indices)
    assert all(type(number) is int and 0 <= number < 2**32 for number in numbers), numbers
    assert 0 < len(set(numbers)) == len(numbers) == len(shard.entries) <= 10_000
    for entry in shard.entries:
        assert parse_request(entry.request.to_json()) == entry.request
        assert entry.request.image_id
        assert entry.id is None or entry.id.encode() is not None
        assert isinstance(entry.columns, dict)
        assert not any(column_trouble(name, value) for name, value in entry.columns.items())
        assert entry.seed_ordinal is None or (type(entry.seed_ordinal) is int and entry.seed_ordinal >= 0)


def test_a_blob_that_would_unpack_to_a_gigabyte_is_refused_before_it_does() -> None:
    piece = b" " * (32 << 20)
    packer = zstandard.ZstdCompressor(level=1).compressobj(size=32 * len(piece))
    blob = b"".join([*(packer.compress(piece) for _ in range(32)), packer.flush()])
    tracemalloc.start()
    with pytest.raises(LedgerError, match="submit"):
        decode_shard(blob, make.BASE, make.JOB)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < len(piece), f"{most:,} bytes"
