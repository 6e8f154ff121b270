"""Outputs in which something else lies in the place of a file: said in a line each, at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.errors import ImagemillError, OutputError
from jobs.output.contents import contents
from jobs.output.equal_lines import noted_lines
from jobs.output.job_files import JobFiles, next_job_number
from jobs.output.licences import read_licences
from jobs.output.line_order import Places, last_job
from jobs.output.output import Output
from jobs.output.output_lock import locked
from jobs.output.stored_shard import LayoutName
from jobs.plain_file import open_or_make
from producer.doctor.checkup import Checkup, check_output
from producer.doctor.quarantine import set_aside
from producer.export.pictures import open_output
from tests.odd_files import DEEP, ODD, cheap, put
from worker.encode import read_file
from worker.render import reproduction_of

Rendered = Callable[..., Output]
REPORTS = ["job.json", ".imagemill/jobs/foxes-1.json"]
PLACES: dict[LayoutName, list[str]] = {
    "files": ["00000/metadata.jsonl", "00000/.failures.jsonl", "00000/000000001.png", *REPORTS],
    "webdataset": ["00000.tar", "00000.parquet", *REPORTS],
}


def readings(output: Output) -> Iterator[Callable[[], object]]:
    """All that reads an output and may refuse it."""
    yield lambda: [row for shard in output.shards() for row in output.records(shard)]
    yield output.held_image_ids
    yield output.failures
    yield lambda: next_job_number(output, "foxes")
    yield lambda: contents(output)
    yield lambda: list(open_output(output).pictures(lambda record: True))


def check_readers(output: Output, folder: Path) -> None:
    """Each reading gives something, or one line that names the output."""
    for read in readings(output):
        with cheap(folder, 320 << 20):
            try:
                read()
            except ImagemillError as error:
                assert str(output.path) in str(error)
                assert str(error).isprintable(), ascii(str(error))


def examined(output: Output, folder: Path) -> Checkup:
    with cheap(folder, 320 << 20):
        return check_output(output)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("layout", PLACES)
def test_what_is_no_file_is_said_by_all_who_read_an_output(
    rendered: Rendered, tmp_path: Path, layout: LayoutName, kind: str
) -> None:
    output = rendered(8, failed=(0,), layout=layout)
    for name in PLACES[layout]:
        before = (output.path / name).read_bytes()
        put(output.path / name, kind)
        check_readers(output, tmp_path)
        checkup = examined(output, tmp_path)
        told = [one.place for one in checkup.problems] + checkup.notes
        place = "00000" if name.endswith(".tar") else name.rpartition("/")[2]
        assert any(place in one for one in told), told
        with cheap(tmp_path, 320 << 20):
            set_aside(output, [one for one in checkup.problems if one.cut is not None][:0])
        (output.path / name).unlink()
        (output.path / name).write_bytes(before)
    assert check_output(output).problems == []


@pytest.mark.parametrize("kind", ODD)
def test_what_imagemill_keeps_beside_the_pictures_is_read_as_carefully(
    rendered: Rendered, tmp_path: Path, kind: str
) -> None:
    output = rendered(4)
    private = output.private
    lines, order, licences = (
        output.path / JobFiles(output, "foxes-1").equal_lines,
        output.path / JobFiles(output, "foxes-1").line_order,
        private / "licences.json",
    )
    card = output.path / "README.md"
    for path in (lines, order, licences, card):
        put(path, kind)
    with cheap(tmp_path, 200 << 20), pytest.raises(OutputError, match=r"foxes-1\.lines\.jsonl"):
        list(noted_lines(output, "foxes-1"))
    with cheap(tmp_path), pytest.raises(OutputError, match=r"foxes-1\.order"):
        Places(output, last_job(output))
    with cheap(tmp_path):
        assert read_licences(output) == {}
    order.unlink()
    assert examined(output, tmp_path).problems == []
    if kind != "sparse":
        with cheap(tmp_path), pytest.raises(OutputError, match="cannot be opened"):
            open_or_make(lines, 1)
        lines.unlink()
        put(private / "lock", kind)
        with cheap(tmp_path), pytest.raises(OutputError, match="lock: cannot be opened"), locked(output):
            pass


@pytest.mark.parametrize("kind", ODD)
def test_a_picture_that_is_none_is_not_rendered_again(rendered: Rendered, tmp_path: Path, kind: str) -> None:
    output = rendered(4)
    picture, metadata = output.path / "00000/000000000.png", output.path / "00000/metadata.jsonl"
    put(metadata, kind)
    with cheap(tmp_path, 200 << 20):
        assert reproduction_of(picture, None).slots is None
    put(picture, kind)
    with cheap(tmp_path), pytest.raises(OutputError, match="cannot be read: "):
        read_file(picture)


def with_line(output: Output, **changes: object) -> None:
    """Changes the first line of the first shard."""
    file = output.metadata_file(0)
    first, *others = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(json.loads(first) | changes), *others]) + "\n")


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [50, 51, 500, 900])
def test_a_column_is_nested_no_deeper_than_that_of_a_prompt_file(
    rendered: Rendered, tmp_path: Path, depth: int
) -> None:
    output = rendered(4)
    with_line(output, note=nested(depth))
    found = [(one.place, one.what) for one in examined(output, tmp_path).problems]
    if depth == 50:
        assert found == []
        assert len(list(open_output(output).pictures(lambda record: True))) == 4
        return
    assert ("00000/metadata.jsonl:1", "is nested deeper than 50") in [
        (place, what.partition(": ")[2] or what) for place, what in found
    ]
    with (
        cheap(tmp_path),
        pytest.raises(OutputError, match=r"jsonl:1: a record nested deeper than 50"),
    ):
        open_output(output)
    check_readers(output, tmp_path)


def test_lists_in_lists_200_000_times_are_no_line(rendered: Rendered, tmp_path: Path) -> None:
    output = rendered(4)
    output.metadata_file(0).write_bytes(DEEP + b"\n" + output.metadata_file(0).read_bytes())
    (output.path / "job.json").write_bytes(DEEP)
    check_readers(output, tmp_path)
    assert "is not a JSON object" in [one.what for one in examined(output, tmp_path).problems]


def test_a_file_whose_hash_a_record_has_is_not_exported_unless_it_is_a_picture(
    rendered: Rendered, tmp_path: Path
) -> None:
    output = rendered(4)
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"whatever is known")
    with_line(output, sha256=hashlib.sha256(secret.read_bytes()).hexdigest())
    picture = output.path / "00000/000000000.png"
    picture.unlink()
    picture.symlink_to(secret)
    with pytest.raises(OutputError, match=r"000000000\.png is no PNG, JPEG or WebP"):
        list(open_output(output).pictures(lambda record: True))


def test_zeros_without_end_after_a_tar_are_not_read(rendered: Rendered, tmp_path: Path) -> None:
    output = rendered(4, layout="webdataset")
    tar = output.path / "00000.tar"
    with tar.open("ab") as file:
        file.truncate(8 << 30)
    found = [one.what for one in examined(output, tmp_path).problems]
    assert any("bytes were added" in what for what in found), found
