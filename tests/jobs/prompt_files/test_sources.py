"""Prompt files are read once to be checked, before anything is submitted, and must then stay as they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from jobs.errors import ManifestError
from jobs.expand import count_images, expand, limit
from jobs.manifest import Manifest, load_manifest
from jobs.models import resolve_model
from jobs.prompt_files.sources import check_sources, lines

MODEL = resolve_model("shapes-random")
BAD = '{"prompt": "a"}\n{"prompt": 7}\n{"prompt": "b", "images_per_prompt": 3}\n{"prompt": "c"\n'


def _manifest(folder: Path, more: str = "", contents: str = '{"prompt": "a"}\n{"prompt": "b"}\n') -> Manifest:
    (folder / "p.jsonl").write_text(contents)
    file = folder / "m.yaml"
    file.write_text(f"name: cats\nmodel: shapes-random\nprompts_from: '*.jsonl'\n{more}")
    return load_manifest(file)


def test_the_check_hashes_each_file_and_counts_the_images(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path, "prompts: [x, {prompt: y, seeds: [1, 2]}]\nsweep: {guidance_scale: [1, 3]}\n"
    )
    sources = check_sources(manifest)
    file = tmp_path / "p.jsonl"
    assert sources.identity == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    assert (sources.images, sources.skipped) == (2, 0)
    assert count_images(manifest, sources) == 10 == len(list(expand(manifest, MODEL, sources=sources)))


def test_wrong_rows_are_told_together_and_stop_the_submission(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        check_sources(_manifest(tmp_path, contents=BAD))
    assert str(caught.value).replace(f"{tmp_path}/", "").split("\n") == [
        "p.jsonl:2: prompt = 7: must be text: write it in quotes",
        "p.jsonl:4: not JSON at column 15: Expecting ',' delimiter",
    ]
    with pytest.raises(ManifestError) as caught:
        check_sources(_manifest(tmp_path, contents="7\n" * 50))
    assert len(str(caught.value).split("\n")) == 21
    assert str(caught.value).endswith("p.jsonl: and more")


def test_wrong_rows_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, "on_bad_row: skip\n", BAD + "7\n" * 30)
    sources = check_sources(manifest)
    assert (sources.images, sources.skipped, len(sources.skipped_rows)) == (4, 32, 20)
    assert sources.skipped_rows[0] == f"{tmp_path}/p.jsonl:2: prompt = 7: must be text: write it in quotes"
    assert [entry.request.prompt for entry in expand(manifest, MODEL)] == ["a", "b", "b", "b"]


def test_an_unchecked_wrong_row_stops_the_stream(tmp_path: Path) -> None:
    stream = lines(_manifest(tmp_path, contents=BAD))
    assert next(stream).prompt == "a"
    with pytest.raises(ManifestError, match=r"p\.jsonl:2: prompt = 7"):
        next(stream)


def test_files_are_streamed(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, contents='{"prompt": "a"}\n' * 3 + "no JSON\n")
    assert len(list(limit(expand(manifest, MODEL), 3))) == 3


@pytest.mark.parametrize("change", ["written", "grown", "replaced", "gone", "joined"])
def test_a_file_that_changed_since_it_was_checked_is_refused(tmp_path: Path, change: str) -> None:
    manifest = _manifest(tmp_path)
    sources = check_sources(manifest)
    file = tmp_path / "p.jsonl"
    match change:
        case "written":
            before = file.stat().st_mtime_ns
            file.write_text(file.read_text().replace("a", "z"))
            os.utime(file, ns=(before + 1, before + 1))
        case "grown":
            with file.open("a") as stream:
                stream.write('{"prompt": "c"}\n')
        case "replaced":
            stat = file.stat()
            (tmp_path / "new").write_text(file.read_text().replace("a", "z"))
            os.utime(tmp_path / "new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
            (tmp_path / "new").replace(file)
        case "gone":
            file.unlink()
        case "joined":
            (tmp_path / "q.jsonl").write_text('{"prompt": "c"}\n')
    with pytest.raises(ManifestError, match=r"submit again"):
        list(expand(manifest, MODEL, sources=sources))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    stream = expand(manifest, MODEL, sources=check_sources(manifest))
    next(stream)
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write('{"prompt": "c"}\n')
    with pytest.raises(ManifestError, match=r"p\.jsonl: changed while it was being submitted"):
        list(stream)


def test_a_manifest_with_files_survives_json(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, "sweep: {seed: [1, 2]}\non_bad_row: skip\n")
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert list(expand(again, MODEL)) == list(expand(manifest, MODEL))
    assert "prompts" not in manifest.to_json()
