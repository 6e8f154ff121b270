"""In `layout: files` a picture at the end of a large shard costs its own line, and not those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from serve_output import make_output

from jobs.output.files import FolderShard
from jobs.output.output import Output
from producer.serve.gallery.folder_index import FolderIndex
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.line import Cursor

Rendered = Callable[..., Output]
Look = Callable[[Output], GalleryOutput]
IMAGES = 2_500


class Counting:
    """A store of an output that counts the lines that are read from the beginning of a file, and those that
    are read where they lie."""

    def __init__(self, store: object) -> None:
        self._store, self.passed, self.sought = store, 0, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def lines(self, name: str) -> Iterator[bytes]:
        for line in self._store.lines(name):  # type: ignore[attr-defined]
            self.passed += 1
            yield line

    @contextmanager
    def opened(self, name: str, *, whole: bool = False) -> Iterator[Counting]:
        with self._store.opened(name, whole=whole) as self._file:  # type: ignore[attr-defined]
            yield self

    def read_at(self, start: int, size: int) -> bytes:
        self.sought += 1
        data: bytes = self._file.read_at(start, size)
        assert data.count(b"\n") == 1 and data.endswith(b"\n")
        return data


def pictures(looked: GalleryOutput) -> None:
    """Asks for three pictures."""
    for position in (0, 1_200, IMAGES - 1):
        assert looked.picture(Cursor(0, position)) is not None


def one_page(looked: GalleryOutput) -> None:
    """Asks for the page of the last pictures."""
    lines = looked.page(Cursor(0, IMAGES - 60)).lines
    assert (len(lines), lines[0].place.position) == (60, IMAGES - 60)


def page_before(looked: GalleryOutput) -> None:
    """Asks for the page before the last ones."""
    lines = looked.before(Cursor(0, IMAGES - 60)).lines
    assert (len(lines), lines[0].place.position) == (60, IMAGES - 120)


@pytest.mark.parametrize(("visit", "lines"), [(pictures, 3), (one_page, 60), (page_before, 60)])
def test_a_large_folder_is_walked_through_once_and_then_lines_are_read_where_they_lie(
    visit: Callable[[GalleryOutput], None], lines: int, gallery: Look, tmp_path: Path
) -> None:
    output = make_output(tmp_path / "large", IMAGES, IMAGES, layout="files")
    store = Counting(output.store)
    looked = gallery(Output(output.path, store))  # type: ignore[arg-type]
    assert looked.record(Cursor(0, 7)) is not None
    assert (store.passed, store.sought) == (IMAGES, 1)
    visit(looked)
    assert (store.passed, store.sought) == (IMAGES, 1 + lines)


def test_a_folder_that_was_changed_is_read_as_it_is_now(rendered: Rendered, gallery: Look) -> None:
    output = rendered(4)
    looked, file = gallery(output), output.metadata_file(0)
    assert len(looked.page().lines) == 4
    lines = file.read_text("utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[2:]), "utf-8")
    assert [one.place.position for one in looked.page().lines] == [2, 3]
    assert looked.picture(Cursor(0, 3)) is not None


def test_records_that_are_out_of_order_are_shown_in_order(rendered: Rendered, gallery: Look) -> None:
    output = rendered(4)
    file = output.metadata_file(0)
    lines = file.read_text("utf-8").splitlines(keepends=True)
    file.write_text("".join([lines[3], lines[0], "no JSON\n", lines[2]]), "utf-8")
    looked = gallery(output)
    piece = looked.page()
    assert [one.place.position for one in piece.lines] == [0, 2, 3]
    assert len(piece.troubles) == 1 and "metadata.jsonl:3: not JSON" in piece.troubles[0]
    for line in piece.lines:
        picture = looked.picture(line.place)
        assert picture is not None and picture[1]["image_id"] == line.image_id


def test_an_index_tells_its_bytes_and_holds_no_line(rendered: Rendered, tmp_path: Path) -> None:
    large = make_output(tmp_path / "large", IMAGES, IMAGES, layout="files")
    assert FolderIndex.of(FolderShard(large.path, 0, large.names), large.store).bytes <= 18 * IMAGES + 500
    output = rendered(4)
    output.metadata_file(0).write_text("[" * 1_000_000 + "\n", "utf-8")
    index = FolderIndex.of(FolderShard(output.path, 0, output.names), output.store)
    assert len(index.gaps) == 1 and index.bytes < 4_000
