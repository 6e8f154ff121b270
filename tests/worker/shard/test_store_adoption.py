"""What earlier attempts finished is adopted where it is sound."""

import errno
import json
import os

import pytest

from tests.worker.shard.stores import (
    FILES,
    a_store,
    check_whole,
    entries,
    save,
)

pytestmark = pytest.mark.usefixtures("layout")


def test_finished_images_are_adopted_not_rendered_again(output):
    lines = entries(5)
    first = a_store(output, lines)
    save(first, 1, 4)
    original = first.folder / "images/000030001.png"
    second = a_store(output, lines, attempt="2")
    assert second.adopt() == [1, 4]
    assert original.samefile(second.folder / "images/000030001.png")
    third = a_store(output, lines, attempt="3")
    save(third, 0)
    assert third.adopt() == [0, 1, 4]
    save(third, 2, 3)
    assert third.commit([])
    check_whole(output, lines, 3)


@FILES
def test_where_there_are_no_hard_links_images_are_copied(output, monkeypatch):
    lines = entries(1)
    save(a_store(output, lines), 0)

    def refused(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    store = a_store(output, lines, attempt="2")
    assert store.adopt() == [0]
    assert store.commit([])
    check_whole(output, lines, 3)


def test_leftovers_of_an_ended_job_are_adopted_under_new_keys_and_columns(output):
    old = entries(4, colour="old")
    leftover = a_store(output, old, shard=1, job_id="scenes-1", column_names=["colour"])
    save(leftover, 1, 3)
    new = [old[position]._replace(columns={"colour": "new"}) for position in (3, 2, 1)]
    store = a_store(output, new, shard=5, job_id="scenes-2", adopt_below=5, column_names=["colour"])
    assert store.adopt() == [0, 2]
    save(store, 1)
    assert store.commit([])
    check_whole(output, new, 5)
    assert {(record["job_id"], record["colour"]) for record in output.records(5)} == {("scenes-2", "new")}


def test_other_shards_of_the_same_job_are_left_alone(output):
    lines = entries(2)
    save(a_store(output, lines, shard=4), 0)
    assert a_store(output, lines, shard=5, adopt_below=4).adopt() == []


def truncate_image(image, metadata):
    image.write_bytes(image.read_bytes()[:-1])


def corrupt_image(image, metadata):
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 1
    image.write_bytes(data)


def remove_image(image, metadata):
    image.unlink()


def make_image_a_pipe(image, metadata):
    image.unlink()
    os.mkfifo(image)


def make_image_a_link(image, metadata):
    moved = image.rename(image.with_suffix(".moved"))
    image.symlink_to(moved)


def truncate_metadata(image, metadata):
    metadata.write_bytes(metadata.read_bytes()[:-1])


def make_metadata_a_list(image, metadata):
    metadata.write_text("[1]")


def make_metadata_a_folder(image, metadata):
    metadata.unlink()
    metadata.mkdir()


def change(**fields):
    def spoil(image, metadata):
        metadata.write_text(json.dumps(json.loads(metadata.read_bytes()) | fields))

    spoil.__name__ = f"change_{'_'.join(fields)}"
    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        truncate_image,
        corrupt_image,
        remove_image,
        make_image_a_pipe,
        make_image_a_link,
        truncate_metadata,
        make_metadata_a_list,
        make_metadata_a_folder,
        change(image_id="0" * 16),
        change(sha256="0" * 64),
        change(sha256=None),
        change(file_name="../../../../../etc/passwd"),
        change(file_name=7),
        change(rendered="fp32"),
        change(more=1),
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_is_not_sound_is_left_aside_and_rendered_again(output, spoil):
    lines = entries(2)
    first = a_store(output, lines)
    save(first, 0, 1)
    spoil(first.folder / "images/000030000.png", first.folder / f"metadata/{lines[0].request.image_id}.json")
    store = a_store(output, lines, attempt="2")
    assert store.adopt() == [1]
    save(store, 0)
    assert store.commit([])
    check_whole(output, lines, 3)


@pytest.mark.parametrize("place", ["..", ".", "images", "metadata"])
def test_what_a_link_leads_to_is_not_adopted(output, tmp_path, place):
    lines = entries(1)
    first = a_store(output, lines, shard=2)
    save(first, 0)
    folder = (first.folder / place).resolve()
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    assert a_store(output, lines, adopt_below=3).adopt() == []
    folder.unlink()
    elsewhere.rename(folder)
    assert a_store(output, lines, adopt_below=3).adopt() == [0]


def test_strange_files_in_the_spool_harm_nothing(output):
    lines = entries(1)
    (output.spool / "notes.txt").write_text("")
    (output.spool / "00001").write_text("a file")
    (output.spool / "00003").mkdir()
    (output.spool / "00003/7").write_text("a file")
    store = a_store(output, lines, adopt_below=3)
    assert store.adopt() == []
    save(store, 0)
    assert store.commit([])
    check_whole(output, lines, 3)
