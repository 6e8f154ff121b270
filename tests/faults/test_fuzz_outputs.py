"""Outputs that strangers changed: reported, mended as far as they can be, and no file but ours touched."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import assume
from hypothesis import strategies as st

from jobs.entry import Entry
from jobs.errors import ImagemillError, ManifestError
from jobs.ledger.shard import decode_shard
from jobs.output.contents import contents
from jobs.output.job_files import JobFiles, next_job_number
from jobs.output.local_store import LocalStore
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.output_root import check_output_within
from jobs.output.picture_file import read_picture
from jobs.output.stored_shard import LayoutName
from jobs.output.tar_file import TarReader, TarWriter
from jobs.settings import Settings
from producer.doctor.checkup import check_output
from producer.doctor.quarantine import set_aside
from producer.export.pictures import open_output, pictures
from producer.manifest.base_request import base_request
from producer.requests.prepared import Prepared, prepare
from producer.submit.packed import Packed, pack
from tests.faults import strategies as make
from tests.faults.bounds import bounded
from tests.faults.fuzzing import check_message, fuzz, images_asked
from tests.odd_files import ODD
from tests.odd_files import put as put_odd
from tests.stand_ins import drawn
from worker.engine.renderer import RenderedBy
from worker.render import parse_request, reproduction_of
from worker.shard.store import ShardStore

RENDERED_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"imagemill": "0.1"})


def render_all(packed: Packed, prepared: Prepared, failed: Callable[[int, int], bool]) -> list[Entry]:
    """Renders what was packed as workers do, with the instant model; those of `failed` fail."""
    output, manifest = prepared.output, prepared.manifest
    output.prepare()
    JobFiles(output, "cats-1").write_manifest(manifest.to_json() | {"revision": prepared.model.revision})
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
            check_output_within(prepared.output, root)
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
        for record, picture in zip(records, open_output(output).pictures(lambda record: True), strict=True):
            assert picture.record == record
            assert read_picture(picture.data).request == requests[record["image_id"]]
        assert check_output(output).problems == []
        assert contents(output).total == packed.images


# Made before the first case, whose time would else hold what rendering imports.
@pytest.fixture(scope="module", autouse=True)
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
    with LocalStore(tar.parent).opened(tar.name) as file:
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
            match kind := data.draw(st.sampled_from([*["bytes"] * 8, "link", *ODD])):
                case "bytes":
                    file.write_bytes(data.draw(st.one_of(ways)))
                case "link":
                    file.unlink()
                    file.symlink_to(outside)
                    unread = ()  # but nothing is written through the link
                case _:
                    put_odd(file, kind)
        output = Output(path)
        found = []
        for read in (
            lambda: [row for shard in output.shards() for row in output.records(shard)],
            output.held_image_ids,
            output.failures,
            lambda: next_job_number(output, "cats"),
            lambda: contents(output),
            lambda: list(open_output(output).pictures(lambda record: True)),
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
        held = list(pictures(output, 0, output.records(0), lambda record: True))
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
