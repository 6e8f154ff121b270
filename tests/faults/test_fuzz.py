"""Whatever strangers' input holds: a clear error or all of what it asks for, in time, and no file but ours.

FUZZ_CASES says how many cases all properties have together (500; a soak has 10,000 and more), FUZZ_SEED makes
the cases of a soak again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st

from jobs.columns import column_trouble
from jobs.errors import ImagemillError, LedgerError, ManifestError
from jobs.ledger.shard import Shard, decode_shard, encode_shard
from jobs.models import BUILT_IN
from jobs.output.card import contents
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.picture_file import read_picture
from jobs.output.stored_shard import LayoutName
from jobs.output.tar_file import TarReader, TarWriter
from jobs.request import Entry
from jobs.settings import Settings
from producer.doctor.checkup import check_output
from producer.doctor.quarantine import set_aside
from producer.export.pictures import pictures
from producer.manifest.base_request import base_request
from producer.manifest.latents import gather_latents
from producer.manifest.manifest import Manifest, load_manifest
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines
from producer.requests.expand import identify
from producer.requests.prepared import Prepared, prepare
from producer.submit.packed import Packed, pack
from tests.faults import strategies as make
from tests.faults.bounds import bounded
from tests.stand_ins import drawn
from worker.engine.renderer import RenderedBy
from worker.render import parse_request, reproduction_of
from worker.shard.store import ShardStore

SLICE = 500
CASES = int(os.environ.get("FUZZ_CASES", SLICE))
SEED = int(os.environ.get("FUZZ_SEED", 6 if CASES <= SLICE else secrets.randbits(32)))
INSTANT = BUILT_IN["instant"]
RENDERED_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"imagemill": "0.1"})

_MOST = 3000
"""Images that are looked at of a manifest that asks for more."""

Test = Callable[..., None]


def fuzz(cases: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Test], Test]:
    """Runs a property on so many cases of every 500."""

    def decorate(test: Test) -> Test:
        chosen = settings(
            max_examples=max(1, CASES * cases // SLICE),
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        return seed(SEED)(chosen(given(**strategies)(test)))

    return decorate


@pytest.fixture(scope="module", autouse=True)
def _the_seed_is_shown(pytestconfig: pytest.Config) -> None:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    if CASES > SLICE and capture is not None:
        with capture.global_and_fixture_disabled():
            print(f"\nFUZZ_CASES={CASES} FUZZ_SEED={SEED}")  # noqa: T201


def check_message(error: ImagemillError, place: str) -> None:
    """The message is a line for each problem, each of which begins with its place and shows on a terminal."""
    message = str(error)
    assert message, error
    for line in message.split("\n"):
        assert line.startswith(place), message
        assert line.isprintable(), ascii(message)
        assert len(line) < 2000, message


def images_asked(manifest: Mapping[str, Any]) -> int:
    """How many images the prompts of a manifest ask for, those that are the same counted each."""
    usual = manifest["settings"]["images_per_prompt"]
    swept = prod(len(values) for values in manifest.get("sweep", {}).values())
    total = 0
    for line in manifest.get("prompts", ()):
        asked = {} if isinstance(line, str) else line
        texts = asked.get("sample") or prod(len(values) for values in asked.get("variables", {}).values())
        total += texts * swept * (len(asked.get("seeds", ())) or asked.get("images_per_prompt", usual))
    return total


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
            assert noise is not None or nothing or "cannot be read as parquet" in str(error)
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


def render_all(packed: Packed, prepared: Prepared, failed: Callable[[int, int], bool]) -> list[Entry]:
    """Renders what was packed as workers do, with the instant model; those of `failed` fail."""
    output, manifest = prepared.output, prepared.manifest
    output.prepare()
    output.write_job_manifest("cats-1", manifest.to_json() | {"revision": prepared.model.revision})
    rendered: list[Entry] = []
    for number, packed_shard in enumerate(shard for shard in packed.shards if shard.images):
        shard = decode_shard(packed.blob(packed_shard), base_request(manifest, prepared.model), manifest.name)
        store = ShardStore(
            output, number, "1-a", shard.entries, job_id="cats-1", column_names=manifest.column_names(),
            adopt_below=0, layout=manifest.layout,
        )  # fmt: skip
        failures = []
        for position, entry in enumerate(shard.entries):
            if failed(number, position):
                failure = {"reason": "black", "job_id": "cats-1", "command": "render it"}
                failures.append(Failure(shard=number, position=position, entry=entry, **failure))
            else:
                store.save(position, drawn(entry.request), RENDERED_BY)
        assert store.commit(failures)
        rendered += shard.entries
    return rendered


@fuzz(20, written=make.manifests())
def test_a_manifest_becomes_the_pictures_it_asks_for(written: dict[str, Any], tmp_path: Path) -> None:
    assume(images_asked({**written, "settings": {"images_per_prompt": 3}}) < 60)
    with TemporaryDirectory(dir=tmp_path) as folder:
        file, root = Path(folder) / "cats.yaml", Path(folder) / "root"
        settings_usual = {"height": 8, "width": 8} | written.get("settings", {})
        settings_usual = {n: v for n, v in settings_usual.items() if n not in written.get("sweep", {})}
        written = written | {"output": str(root / "cats"), "settings": settings_usual}
        file.write_text(yaml.safe_dump(written, allow_unicode=True), encoding="utf-8")
        root.mkdir()
        with bounded(root):
            try:
                prepared = prepare(file, Settings(output_root=root))
            except ManifestError as error:
                check_message(error, f"{file}:")
                return
            prepared.output.check_within(root)
            with pack(prepared) as packed:
                rendered = render_all(packed, prepared, lambda shard, position: False)
            assert packed.images + packed.equal_lines + packed.duplicates == images_asked(
                prepared.manifest.to_json()
            )
        output = prepared.output
        records = [record for shard in output.shards() for record in output.records(shard)]
        assert [record["image_id"] for record in records] == [entry.request.image_id for entry in rendered]
        assert len({record["image_id"] for record in records}) == packed.images
        requests = {entry.request.image_id: entry.request for entry in rendered}
        for record, picture in zip(
            records, pictures(output, output.shards(), lambda image_id: True), strict=True
        ):
            assert picture.record == record
            assert read_picture(picture.data).request == requests[record["image_id"]]
        assert check_output(output).problems == []
        assert contents(output).total == packed.images


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[LayoutName, Path]:
    """A sound output of two shards in each layout, a failure in the first."""
    folder = tmp_path_factory.mktemp("outputs")
    made: dict[LayoutName, Path] = {}
    for layout in ("files", "webdataset"):
        prompts = [{"prompt": f"fox {n}", "columns": {"split": "a"}, "id": str(n)} for n in range(4)]
        written = {
            "name": "cats",
            "model": "instant",
            "revision": "instant-1",
            "layout": layout,
            "shard_size": 3,
        }
        written |= {"settings": {"height": 8, "width": 8}, "prompts": prompts, "output": str(folder / layout)}
        written |= {"prompts_from": [{"file": "more.jsonl", "columns": ["split"]}]}
        (folder / "more.jsonl").write_text('{"prompt": "fox 4", "split": "b"}\n')
        file = folder / f"{layout}.yaml"
        file.write_text(yaml.safe_dump(written), encoding="utf-8")
        prepared = prepare(file, Settings(output_root=folder))
        with pack(prepared) as packed:
            render_all(packed, prepared, lambda shard, position: (shard, position) == (0, 1))
        report = {
            "job_id": "cats-1",
            "output": {"images": 5, "shards": 2},
            "manifest": prepared.manifest.to_json(),
        }
        kept = folder / layout / ".imagemill" / "jobs" / "cats-1.json"
        kept.write_text(json.dumps(json.loads(kept.read_bytes()) | {"narrowed": "--limit 5"}))
        (folder / layout / "job.json").write_text(json.dumps(report))
        made[layout] = folder / layout
    return made


@st.composite
def _changed_lines(draw: st.DrawFn, data: bytes, one: bool = False) -> bytes:
    """Lines of JSON (or `one` value), one of them another."""
    rows = [data] if one else data.splitlines(keepends=True)
    at = draw(st.integers(0, len(rows) - 1))
    row = json.loads(rows[at])
    rows[at] = draw(
        st.one_of(
            make.twisted(row).map(lambda value: json.dumps(value).encode() + b"\n"),
            make.nested(json.dumps(row | {"id": None})).map(lambda text: text.encode() + b"\n"),
            _resealed(row),
            make.damaged(rows[at]),
            st.just(rows[0]),
        )
    )
    return b"".join(rows)


@st.composite
def _resealed(draw: st.DrawFn, row: dict[str, Any]) -> bytes:
    """A row that was changed by who knows how an image_id is made."""
    changed = draw(make.twisted(row))
    inner = changed.get("request") if isinstance(changed, dict) else None
    request = inner if isinstance(inner, dict) else changed
    if isinstance(request, dict) and isinstance(changed, dict):
        names = [name for name in make.BASE.__slots__ if name not in ("model", "image_quality", "prompt")]
        kept = {name: request[name] for name in names if name in request}
        kept["prompt"] = request.get("prompt", request.get("text"))
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        changed["image_id"] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return json.dumps(changed).encode() + b"\n"


def _members(tar: Path) -> Iterator[tuple[str, bytes]]:
    with tar.open("rb") as file:
        reader = TarReader(file)
        for member in reader.members():
            yield member.name, reader.read(member)


@st.composite
def _changed_tar(draw: st.DrawFn, file: Path) -> bytes:
    """A tar with one of its members another, and right checksums."""
    members = list(_members(file))
    at = draw(st.integers(0, len(members) - 1))
    name, data = members[at]
    match draw(st.sampled_from(["contents", "contents", "name", "double", "remove", "size"])):
        case "contents" if "json" in name:
            members[at] = name, draw(_changed_lines(data))
        case "contents":
            members[at] = name, draw(make.damaged(data))
        case "name":
            odd = ["../outside.png", "/x.png", "x", "a/b.json", ".repaired.jsonl", members[0][0], "é.json"]
            members[at] = draw(st.sampled_from(odd)), data
        case "double":
            members.append(members[at])
        case "remove":
            del members[at]
        case _:
            pass
    sink = io.BytesIO()
    writer = TarWriter(sink)
    for name, data in members:
        writer.add(name, data)
    writer.close()
    packed = bytearray(sink.getvalue())
    if draw(st.integers(0, 5)) == 0:
        # A size that no tar has: the checksum is right all the same.
        sizes = [b"-0000002000\0", b"-0000000001\0", b"77777777777\0", b"0_0_0_0_0_1\0"]
        packed[124:136] = draw(st.sampled_from(sizes))
        packed[148:156] = b"        "
        packed[148:156] = b"%06o\0 " % sum(packed[:512])
    return bytes(packed)


_REPORTS = ["job.json", ".imagemill/jobs/cats-1.json"]
_PLACES: dict[LayoutName, list[str]] = {
    "files": [
        "00000/metadata.jsonl", "00000/metadata.jsonl", "00001/metadata.jsonl", "00000/.failures.jsonl",
        "00000/000000000.png", *_REPORTS,
    ],
    "webdataset": ["00000.tar", "00000.tar", "00001.tar", "00001.parquet", *_REPORTS],
}  # fmt: skip


@fuzz(40, data=st.data(), layout=st.sampled_from(["files", "webdataset"]))
def test_an_output_that_was_changed_is_reported_and_mended_and_nothing_else_touched(
    data: st.DataObject, layout: LayoutName, outputs: dict[LayoutName, Path], tmp_path: Path
) -> None:
    with TemporaryDirectory(dir=tmp_path) as folder:
        path, outside = Path(folder) / "out", Path(folder) / "outside.png"
        shutil.copytree(outputs[layout], path)
        outside.write_bytes(b"mine")
        unread: tuple[Path, ...] = (outside,)
        for name in data.draw(
            st.lists(st.sampled_from(_PLACES[layout]), min_size=1, max_size=2, unique=True)
        ):
            file = path / name
            before = file.read_bytes()
            ways = [make.damaged(before)]
            if file.suffix in {".json", ".jsonl"}:
                ways += [_changed_lines(before, one=file.suffix == ".json")] * 4
            elif file.suffix == ".tar":
                ways += [_changed_tar(file)] * 4
            if data.draw(st.integers(0, 5)) == 0:
                file.unlink()
                file.symlink_to(outside)
                unread = ()  # but nothing is written through the link
            else:
                file.write_bytes(data.draw(st.one_of(ways)))
        output = Output(path)
        found = []
        for read in (
            lambda: [row for shard in output.shards() for row in output.records(shard)],
            output.held_image_ids,
            output.failures,
            lambda: output.next_job_number("cats"),
            lambda: contents(output),
            lambda: list(pictures(output, output.shards(), lambda image_id: True)),
        ):
            with bounded(path, unread=unread):
                try:
                    found.append(read())
                except ImagemillError as error:
                    assert str(path) in str(error)
                    assert str(error).isprintable(), ascii(str(error))
        with bounded(path, unread=unread):
            checkup = check_output(output)
            assert all(f"{one.place}{one.what}{one.remedy}".isprintable() for one in checkup.problems)
            repair = set_aside(output, checkup.problems)
            again = check_output(output)
            # What a first repair empties can leave a gap below it, which a second one notes.
            if set_aside(output, again.problems) is not None:
                again = check_output(output)
        if repair is not None:
            assert [one for one in again.problems if one.cut is not None] == []
        kept = {image.image_id for shard in checkup.shards for image in shard.images}
        assert kept <= {image.image_id for shard in again.shards for image in shard.images}
        assert outside.read_bytes() == b"mine"


_KEPT = {
    "name": "cats", "model": "instant", "settings": {"height": 8}, "prompts": ["a"], "narrowed": "--limit 2",
}  # fmt: skip
_NARROWED = st.sampled_from(
    ["", "--limit", "--limit -1", "--sample -1", "--limit 1e3", f"--limit {10**30}", "x", 7, None]
)
_SOURCES = st.sampled_from(["/", "/dev", "..", "a" * 300 + ".txt", "/etc/hostname", "x.txt", "[", "**"])


@fuzz(
    15,
    kept=make.twisted(_KEPT)
    | _NARROWED.map(lambda narrowed: {**_KEPT, "narrowed": narrowed})
    | _SOURCES.map(lambda file: {**_KEPT, "prompts_from": [{"file": file}]}),
)
def test_a_kept_manifest_that_was_changed_is_reported(kept: Any, tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.jobs.mkdir(parents=True, exist_ok=True)
    (output.jobs / "cats-1.json").write_text(json.dumps(kept))
    with bounded(tmp_path):
        checkup = check_output(output)
    # Nothing is there, so whatever it asks for is missing, unless nobody can tell what that is.
    about = [one for one in checkup.problems if one.file == ".imagemill/jobs/cats-1.json"]
    noted = [note for note in checkup.notes if "cats-1" in note]
    assert [one.kind for one in about] in (["missing"], ["report"]) or noted
    assert kept != _KEPT or [one.kind for one in about] == ["missing"]


@fuzz(15, data=st.data())
def test_only_the_very_picture_is_adopted(data: st.DataObject, tmp_path: Path) -> None:
    with TemporaryDirectory(dir=tmp_path) as folder:
        output = Output(Path(folder) / "out")
        outside = Path(folder) / "outside.png"
        outside.write_bytes(b"mine")
        output.prepare()
        entries = data.draw(make.entries())
        assume(len({entry.request.image_id for entry in entries}) == len(entries))
        columns = ["split", "score", "note", "ümlaut"]

        def store(attempt: str) -> ShardStore:
            return ShardStore(
                output, 0, attempt, entries, job_id="cats-1", column_names=columns, adopt_below=1
            )

        first = store("1-a")
        for position, entry in enumerate(entries):
            first.save(position, drawn(entry.request), RENDERED_BY)
        for file in sorted(first.folder.glob("*/*")):
            if data.draw(st.booleans()):
                whole = file.suffix == ".json"
                file.write_bytes(data.draw((_changed_lines if whole else make.damaged)(file.read_bytes())))
        if data.draw(st.booleans()):
            (output.spool / data.draw(st.sampled_from(["²", "x", "-1", "٣", "9" * 200]))).mkdir()
        second = store("2-b")
        with bounded(output.path, unread=(outside,)):
            adopted = second.adopt()
            for position in set(range(len(entries))) - set(adopted):
                second.save(position, drawn(entries[position].request), RENDERED_BY)
            assert second.commit([])
        held = list(pictures(output, [0], lambda image_id: True))
        assert [one.record["image_id"] for one in held] == [entry.request.image_id for entry in entries]
        for one, entry in zip(held, entries, strict=True):
            assert read_picture(one.data).request == entry.request
        assert [one.what for one in check_output(output).problems] == []
        assert contents(output).total == len(entries)


@fuzz(15, data=st.data())
def test_a_picture_is_rendered_again_as_it_was_or_refused(
    data: st.DataObject, outputs: dict[LayoutName, Path], tmp_path: Path
) -> None:
    with TemporaryDirectory(dir=tmp_path) as folder:
        shard = Path(folder) / "00000"
        shutil.copytree(outputs["files"] / "00000", shard)
        picture, metadata = shard / "000000000.png", shard / "metadata.jsonl"
        if data.draw(st.booleans()):
            picture.write_bytes(data.draw(make.damaged(picture.read_bytes())))
        metadata.write_bytes(data.draw(_changed_lines(metadata.read_bytes())))
        with bounded(Path(folder) / "nothing"):
            try:
                again = reproduction_of(picture, None)
            except ImagemillError as error:
                assert str(picture) in str(error)
                return
        assert parse_request(again.request.to_json()) == again.request
        assert again.slots is None or (type(again.slots) is int and 1 <= again.slots <= 1024)
