"""Of a damaged shard the pages show what can be read, and say what cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jobs.output.output import Output
from producer.serve.gallery.filter import Filter
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.line import Cursor
from tests.page_text import tiles, words

Rendered = Callable[..., Output]
PagesOf = Callable[[Output], tuple[TestClient, str]]
Look = Callable[[Output], GalleryOutput]


def spoil_line(file: Path, number: int, line: str = "no JSON") -> None:
    """Puts something else in the place of a line, from 1."""
    lines = file.read_text("utf-8").splitlines()
    lines[number - 1] = line
    file.write_text("".join(f"{one}\n" for one in lines), "utf-8")


def cut(file: Path, part: float) -> None:
    """Leaves the first part of a file."""
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        '{"file_name": "000010001.png", "image_id": 7}',
        '{"file_name": "000010001.png", ',
        '{"file_name": "000000001.png", "image_id": "0123456789abcdef"}',
    ],
)
def test_of_a_folder_with_a_bad_line_all_else_is_shown_and_the_line_is_named(
    line: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(12)
    spoil_line(output.metadata_file(1), 2, line)
    client, base = pages_of(output)
    page = client.get(base).text
    assert tiles(page) == [f"{base}/{n // 4}/{n % 4}" for n in range(12) if n != 5]
    for path in ("", "/grid", "?text=fox"):
        said = words(client.get(base + path).text)
        assert said.count("00001/metadata.jsonl:2: ") == 1, path
        assert f"What else is in the shard is shown; imagemill doctor {output.label} says what is not" in said
    assert client.get(f"{base}/1/2").status_code == client.get(f"{base}/1/2/file").status_code == 200
    hidden = client.get(f"{base}/1/1")
    assert hidden.status_code == 502
    assert "00001/metadata.jsonl:2: " in words(hidden.text)
    assert client.get(f"{base}/1/0").status_code == 200


def test_many_bad_lines_are_one_message(rendered: Rendered, gallery: Look) -> None:
    output = rendered(4)
    for number in (1, 2, 4):
        spoil_line(output.metadata_file(0), number)
    [trouble] = gallery(output).page().troubles
    assert "metadata.jsonl:1: " in trouble and "(and 2 places more)" in trouble


@pytest.mark.parametrize("failed", [False, True])
def test_of_lines_without_end_no_more_are_read_than_a_shard_has(
    failed: bool, rendered: Rendered, gallery: Look
) -> None:
    output = rendered(4, failed=(1,))
    (output.failures_file(0) if failed else output.metadata_file(0)).write_text("x\n" * 30_000)
    [trouble] = gallery(output).page(taken=Filter(failed=failed)).troubles
    assert "jsonl:1: " in trouble and "(and 10,000 places more)" in trouble


def test_a_bad_line_is_told_once_on_its_way_through_a_gallery(rendered: Rendered, gallery: Look) -> None:
    output = rendered(4)
    spoil_line(output.metadata_file(0), 2)
    looked, place, told = gallery(output), Cursor(0, 0), list[int]()
    while len(told) < 3:
        piece = looked.page(place, count=1)
        told.append(len(piece.troubles))
        place = piece.next or place
    assert told == [1, 0, 0]
    assert len(looked.page(Cursor(0, 1), count=1).troubles) == 1
    assert len(looked.before(Cursor(0, 4)).troubles) == 1


@pytest.mark.parametrize("parquet", [True, False])
def test_of_a_tar_that_is_cut_off_what_is_there_is_shown(
    parquet: bool, rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(12, layout="webdataset")
    cut(output.path / "00001.tar", 0.35)
    if not parquet:
        for file in output.path.glob("*.parquet"):
            file.unlink()
    client, base = pages_of(output)
    shown = tiles(client.get(base).text)
    there = [place for place in shown if client.get(f"{place}/file").status_code == 200]
    assert f"{base}/1/0" in there and f"{base}/1/3" not in there
    assert (shown == there) is not parquet  # the table tells of those that are lost
    for path in ("", "/grid"):
        said = words(client.get(base + path).text)
        assert "00001.tar: is cut off" in said, path
        assert f"imagemill doctor {output.label}" in said
    for path in ("/1/3", "/1/3/file"):
        answer = client.get(base + path)
        assert answer.status_code == 502 and "00001.tar: is cut off" in words(answer.text)


@pytest.mark.parametrize("way", ["page", "before"])
def test_of_a_tar_with_a_bad_record_the_others_are_shown(way: str, rendered: Rendered, gallery: Look) -> None:
    output = rendered(4, layout="webdataset")
    [parquet] = output.path.glob("*.parquet")
    parquet.unlink()
    tar = output.path / "00000.tar"
    data = tar.read_bytes()
    at = data.index(b'{"file_name": "000000001.png"')
    tar.write_bytes(data[:at] + b"[" + data[at + 1 :])
    looked = gallery(output)
    piece = looked.page() if way == "page" else looked.before(Cursor(1, 0))
    assert [line.place.position for line in piece.lines] == [0, 2, 3]
    [trouble] = piece.troubles
    assert "00000.tar: 000000001.json: not JSON" in trouble


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_of_failures_with_a_bad_line_the_others_are_shown(
    layout: str, rendered: Rendered, gallery: Look, pages_of: PagesOf
) -> None:
    output = rendered(4, failed=(0, 1, 3), layout=layout)
    for file in output.path.glob("*.parquet"):
        file.unlink()
    stored = output.path / ("00000.tar" if layout == "webdataset" else "00000/.failures.jsonl")
    data = stored.read_bytes()
    at = data.index(b"\n") + 1  # the second line
    stored.write_bytes(data[:at] + b"[" + data[at + 1 :])
    piece = gallery(output).page(taken=Filter(failed=True))
    assert [line.place.position for line in piece.lines] == [0, 3]
    assert len(piece.troubles) == 1 and ".failures.jsonl:2: not JSON" in piece.troubles[0]
    client, base = pages_of(output)
    assert [client.get(f"{base}/0/{place}").status_code for place in range(4)] == [200, 502, 200, 200]


def test_a_column_is_looked_for_though_the_first_shard_is_damaged(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    prompts = [{"prompt": f"fox {n}", "columns": {"kind": f"k{n % 2}"}} for n in range(8)]
    output = rendered(8, prompts=prompts)
    spoil_line(output.metadata_file(0), 1)
    client, base = pages_of(output)
    assert tiles(client.get(f"{base}?column=kind&value=k1").text) == [
        f"{base}/{place}?column=kind&amp;value=k1" for place in ("0/1", "0/3", "1/1", "1/3")
    ]
