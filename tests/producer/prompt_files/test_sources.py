"""Prompt files are one stream of lines; what is wrong with their rows is reported together."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jobs.errors import ManifestError
from jobs.models.models import resolve_model
from producer.manifest.manifest import Manifest, load_manifest
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines, source_rows
from tests.expanded import expand

MODEL = resolve_model("shapes-random")
BAD = '{"prompt": "a"}\n{"prompt": 7}\n{"prompt": "b", "images_per_prompt": 3}\n{"prompt": "c"\n'


def _manifest(folder: Path, more: str = "", contents: str = '{"prompt": "a"}\n{"prompt": "b"}\n') -> Manifest:
    (folder / "p.jsonl").write_text(contents)
    file = folder / "m.yaml"
    file.write_text(f"name: cats\nmodel: shapes-random\nprompts_from: '*.jsonl'\n{more}")
    return load_manifest(file)


def test_a_reading_keeps_what_each_file_held(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path, "prompts: [x, {prompt: y, seeds: [1, 2]}]\nsweep: {guidance_scale: [1, 3]}\n"
    )
    reading, file = Reading(), tmp_path / "p.jsonl"
    assert len(list(expand(manifest, MODEL, reading=reading))) == 10
    assert reading == Reading({str(file): hashlib.sha256(file.read_bytes()).hexdigest()}, 0, [])


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.txt", "p.csv", "p.tsv", "p.parquet"])
@pytest.mark.parametrize("large", [0, 1 << 30])
def test_each_file_without_a_prompt_is_named_when_all_were_read(
    tmp_path: Path, name: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.prompt_files.sources.LARGE", large)
    file, reading = tmp_path / name, Reading()
    file.write_text("prompt\n" if name in ("p.csv", "p.tsv") else "")
    if name == "p.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], pyarrow.string())}), file)
    (tmp_path / "more.txt").write_text("# remark\n\n#")
    (tmp_path / "right.txt").write_text("a fox\n")
    files = [str(file), f"{tmp_path}/more.txt", f"{tmp_path}/right.txt"]
    manifest = Manifest.from_json({"name": "cats", "model": "instant", "prompts_from": files})
    stream = lines(manifest, reading)
    assert next(stream).prompt == "a fox"
    with pytest.raises(ManifestError) as caught:
        list(stream)
    assert str(caught.value).split("\n") == [
        f"{path}: holds no prompt: write one into it, or take it out of `prompts_from`" for path in files[:2]
    ]
    assert reading.sha256[str(file)] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert reading.comments == 2


def test_as_many_rows_as_are_handed_over_at_once_are_all_there_are(tmp_path: Path) -> None:
    for count in (511, 512, 513, 1024):
        manifest = _manifest(tmp_path, contents="".join(f'{{"prompt": "{n}"}}\n' for n in range(count)))
        assert [line.prompt for line in lines(manifest)] == [str(n) for n in range(count)]


@pytest.mark.parametrize("source", ["p.jsonl", "*.jsonl"])
def test_a_file_that_went_away_after_the_manifest_was_loaded_is_missed(tmp_path: Path, source: str) -> None:
    _manifest(tmp_path)
    (tmp_path / "m.yaml").write_text(f"name: cats\nmodel: instant\nprompts_from: '{source}'\n")
    manifest = load_manifest(tmp_path / "m.yaml")
    (tmp_path / "p.jsonl").unlink()
    with pytest.raises(ManifestError, match=r"prompts_from = .*jsonl: (matches no|there is no such) file: "):
        list(lines(manifest))


def test_wrong_rows_are_reported_together_and_stop_the_submission(tmp_path: Path) -> None:
    prompts = []
    with pytest.raises(ManifestError) as caught:
        prompts += [line.prompt for line in lines(_manifest(tmp_path, contents=BAD))]
    assert str(caught.value).replace(f"{tmp_path}/", "").split("\n") == [
        "p.jsonl:2: prompt = 7: must be text: write it in quotes",
        "p.jsonl:4: not JSON at column 15: Expecting ',' delimiter",
    ]
    with pytest.raises(ManifestError) as caught:
        list(lines(_manifest(tmp_path, contents="7\n" * 50)))
    assert len(str(caught.value).split("\n")) == 21
    assert str(caught.value).endswith("p.jsonl: and more")


def test_nothing_comes_after_a_row_that_stops_the_submission(tmp_path: Path) -> None:
    stream = lines(_manifest(tmp_path, contents=BAD))
    assert next(stream).prompt == "a"
    with pytest.raises(ManifestError, match=r"p\.jsonl:2: prompt = 7"):
        next(stream)


def test_wrong_rows_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    manifest, reading = _manifest(tmp_path, "on_bad_row: skip\n", BAD + "7\n" * 30), Reading()
    entries = expand(manifest, MODEL, reading=reading)
    assert [entry.request.prompt for entry in entries] == ["a", "b", "b", "b"]
    assert (reading.skipped, len(reading.skipped_rows)) == (32, 20)
    assert reading.skipped_rows[0] == f"{tmp_path}/p.jsonl:2: prompt = 7: must be text: write it in quotes"


def test_a_job_whose_every_row_is_left_out_is_refused_with_its_rows(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        list(lines(_manifest(tmp_path, "on_bad_row: skip\n", "7\n8\n")))
    assert [line.partition(": ")[0] for line in str(caught.value).split("\n")] == [
        f"{tmp_path}/p.jsonl:1",
        f"{tmp_path}/p.jsonl:2",
    ]
    manifest = _manifest(tmp_path, "on_bad_row: skip\nprompts: [a]\n", "7\n8\n")
    assert [line.prompt for line in lines(manifest)] == ["a"]


def test_a_file_that_is_meant_twice_is_refused(tmp_path: Path) -> None:
    _manifest(tmp_path)
    (tmp_path / "m.yaml").write_text("name: cats\nmodel: instant\nprompts_from: [p.jsonl, '*.jsonl']\n")
    with pytest.raises(ManifestError, match=r"p\.jsonl is named twice"):
        list(lines(load_manifest(tmp_path / "m.yaml")))


def test_files_are_streamed(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, contents='{"prompt": "a"}\n' * 2000 + "no JSON\n")
    assert len(list(islice(expand(manifest, MODEL), 3))) == 3


@pytest.mark.parametrize("change", ["written", "grown", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, change: str) -> None:
    manifest, file = _manifest(tmp_path, contents='{"prompt": "a"}\n' * 1000), tmp_path / "p.jsonl"
    stream = lines(manifest)
    next(stream)
    match change:
        case "written":
            before = file.stat().st_mtime_ns
            with file.open("r+") as stream_to:
                stream_to.write('{"prompt": "z"}')
            os.utime(file, ns=(before + 1, before + 1))
        case "grown":
            with file.open("a") as stream_to:
                stream_to.write('{"prompt": "c"}\n')
        case "replaced":
            stat = file.stat()
            (tmp_path / "new").write_text(file.read_text().replace("a", "z"))
            os.utime(tmp_path / "new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
            (tmp_path / "new").replace(file)
        case "gone":
            file.unlink()
    with pytest.raises(ManifestError, match=r"p\.jsonl: (changed while it was being read|cannot be read)"):
        list(stream)


@pytest.fixture
def always_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the files, they are read by a process of their own."""
    monkeypatch.setattr("producer.prompt_files.sources.LARGE", 0)


@pytest.mark.usefixtures("always_ahead")
def test_a_process_that_reads_ahead_gives_the_same_lines_and_the_same_errors(tmp_path: Path) -> None:
    contents = "".join(
        f'{{"prompt": "a {n} 🦊", "seeds": [{n}, {n + 1}], "id": "{n}", "width": 64}}\n' for n in range(3000)
    )
    manifest, reading = _manifest(tmp_path, contents=contents), Reading()
    pids = {process.pid for process in multiprocessing.active_children()}
    stream = lines(manifest, reading)
    first = next(stream)
    assert {process.pid for process in multiprocessing.active_children()} - pids, "a process reads"
    assert [first, *stream] == [row for rows in source_rows(manifest) for row in rows.rows]
    assert list(reading.sha256) == [str(tmp_path / "p.jsonl")]
    with pytest.raises(ManifestError) as caught:
        list(lines(_manifest(tmp_path, contents=BAD)))
    assert len(str(caught.value).split("\n")) == 2
    assert {process.pid for process in multiprocessing.active_children()} == pids, "none is left"


@pytest.mark.usefixtures("always_ahead")
def test_a_row_with_its_prompt_alone_is_a_line_like_those_of_the_manifest(tmp_path: Path) -> None:
    settings = "settings: {images_per_prompt: 2, width: 64}\nprompts: [a, b]\n"
    of_manifest, of_file = (
        lines(_manifest(tmp_path, settings)),
        list(lines(_manifest(tmp_path, settings)))[2:],
    )
    assert list(islice(of_manifest, 2)) == of_file
    settings += "sweep: {seed: [1, 2]}\n"
    of_manifest, of_file = (
        lines(_manifest(tmp_path, settings)),
        list(lines(_manifest(tmp_path, settings)))[2:],
    )
    assert list(islice(of_manifest, 2)) == of_file


@pytest.mark.usefixtures("always_ahead")
def test_no_process_that_reads_ahead_outlives_a_stream_that_is_let_go(tmp_path: Path) -> None:
    stream = lines(_manifest(tmp_path, contents='{"prompt": "a"}\n' * 100_000))
    next(stream)
    (process,) = multiprocessing.active_children()
    stream.close()
    assert not process.is_alive()


@pytest.mark.usefixtures("always_ahead")
def test_a_reader_that_dies_is_reported(tmp_path: Path) -> None:
    stream = lines(_manifest(tmp_path, contents='{"prompt": "a"}\n' * 100_000))
    next(stream)
    (process,) = multiprocessing.active_children()
    process.kill()
    with pytest.raises(ManifestError, match=r"the process that read the files ended with -9 .*again"):
        list(stream)


def test_a_manifest_with_files_survives_json(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, "sweep: {seed: [1, 2]}\non_bad_row: skip\n")
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert list(expand(again, MODEL)) == list(expand(manifest, MODEL))
    assert "prompts" not in manifest.to_json()


def test_a_file_whose_name_is_no_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_text('{"prompt": "a"}\n')
    with pytest.raises(ManifestError, match=r"caf.+udce9\.jsonl' is not UTF-8: rename it"):
        _manifest(tmp_path)


def test_rows_are_handed_on_by_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"{n} {'x' * (3 << 20)}\n" for n in range(20)))
    (tmp_path / "q.txt").write_text("".join(f"{n}\n" for n in range(1100)))
    files = [str(tmp_path / name) for name in ("p.txt", "q.txt")]
    manifest = Manifest.from_json({"name": "cats", "model": "instant", "prompts_from": files})
    counts: dict[str, list[int]] = {}
    for one in source_rows(manifest):
        counts.setdefault(Path(one.path).name, []).append(len(one.rows))
    assert counts == {"p.txt": [8, 8, 4], "q.txt": [512, 512, 76]}
