"""What both kinds of stores of an output do alike: a folder, and a bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import plain_file
from jobs.errors import LeaseLost
from jobs.location import BucketPlace
from jobs.output.bucket_store import BucketStore
from jobs.output.local_store import LocalStore
from jobs.output.store import OutputStore, Stage
from jobs.plain_file import TooLarge
from tests.object_store.breakable_store import BreakableStore


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> OutputStore:
    if request.param == "folder":
        (tmp_path / "out").mkdir()
        return LocalStore(tmp_path / "out")
    return BucketStore(BucketPlace("s3", request.getfixturevalue("bucket"), "sets/out"))


@pytest.fixture
def stage(store: OutputStore, tmp_path: Path) -> Callable[..., Stage]:
    """Makes a stage: on the output's file system, as a worker's spool is."""

    def make(name: str = "00003/000001-a", confirm: Callable[[], None] = lambda: None) -> Stage:
        folder = (tmp_path if store.is_remote else tmp_path / "out") / ".imagemill" / "spool" / name
        folder.mkdir(parents=True)
        return Stage(folder, name, confirm)

    return make


def file(stage: Stage, contents: bytes) -> Path:
    path = stage.folder / "00003.tar"
    path.write_bytes(contents)
    return path


def put(store: OutputStore, name: str, contents: bytes) -> None:
    with store.written(name) as writing:
        writing.write(contents)


def raising() -> None:
    raise LeaseLost("others have it")


def test_a_file_is_read_whole_by_lines_and_at_any_place(store: OutputStore) -> None:
    contents = b"".join(b"line %d\n" % number for number in range(300_000)) + b"the last"
    put(store, "a/b.txt", contents)
    assert store.read("a/b.txt") == contents
    assert list(store.lines("a/b.txt")) == contents.splitlines(keepends=True)
    assert store.size("a/b.txt") == len(contents)
    with store.opened("a/b.txt") as opened:
        assert opened.size == len(contents)
        for start, size in ((0, 10), (262_100, 100), (3_000_000, 1_200_000), (5, 5), (len(contents) - 3, 9)):
            assert opened.read_at(start, size) == contents[start : start + size]
        assert opened.read_at(len(contents), 1) == b""


def test_an_empty_file_is_read_and_has_no_lines(store: OutputStore) -> None:
    store.replace("empty", b"")
    assert (store.read("empty"), list(store.lines("empty")), store.size("empty")) == (b"", [], 0)
    with store.opened("empty") as opened:
        assert (opened.size, opened.read_at(0, 10)) == (0, b"")


def test_a_file_that_is_not_there_is_said_to_be_missing(store: OutputStore) -> None:
    assert not store.exists("a.json")
    assert not store.is_taken("a.json")
    for ask in (
        lambda: store.read("a.json"),
        lambda: list(store.lines("a.json")),
        lambda: store.opened("a.json").__enter__(),
        lambda: store.size("a.json"),
        lambda: store.modified("a.json"),
        lambda: store.copy("a.json", "b.json"),
        lambda: store.move("a.json", "b.json"),
    ):
        with pytest.raises(FileNotFoundError):
            ask()
    assert not store.exists("b.json")
    store.remove("a.json")


def test_a_line_without_end_is_refused_before_all_of_it_is_read(
    store: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_file, "LONGEST_LINE", 1 << 20)
    put(store, "a", b"a line\n" + bytes(3 << 20))
    lines = store.lines("a")
    assert next(lines) == b"a line\n"
    with pytest.raises(TooLarge, match="a line of more than 1 MiB"):
        next(lines)


def test_more_than_may_be_read_is_refused(store: OutputStore) -> None:
    store.replace("a", b"12345")
    assert store.read("a", 5) == b"12345"
    with pytest.raises(TooLarge):
        store.read("a", 4)


def test_a_folder_lists_its_entries_and_all_files_below_it(store: OutputStore) -> None:
    for name in ("job.json", "00001.tar", "00001/deep/x", "000010/y", ".imagemill/jobs/a b-1.json"):
        put(store, name, b"1")
    assert {(one.name, one.is_folder, one.is_file) for one in store.list()} == {
        ("job.json", False, True),
        ("00001.tar", False, True),
        ("00001", True, False),
        ("000010", True, False),
        (".imagemill", True, False),
    }
    assert [one.name for one in store.list("00001")] == ["deep"]
    assert [*store.list("nothing")] == []
    assert [*store.files_below("00001")] == ["00001/deep/x"]
    assert [*store.files_below(".imagemill")] == [".imagemill/jobs/a b-1.json"]
    assert [*store.files_below("nothing")] == []
    assert len([*store.files_below("")]) == 5


def test_a_file_is_replaced_copied_moved_and_removed(store: OutputStore) -> None:
    put(store, "a/one", b"first")
    store.replace("a/one", b"second")
    store.copy("a/one", "b/two")
    assert store.read("b/two") == store.read("a/one") == b"second"
    put(store, "c/three", b"old")
    store.move("b/two", "c/three")
    assert store.read("c/three") == b"second"
    assert not store.exists("b/two")
    store.remove("c/three")
    assert not store.exists("c/three")
    assert store.read("a/one") == b"second"


def test_what_is_written_is_there_at_the_end_whole_or_not_at_all(store: OutputStore) -> None:
    with store.written("a/one") as writing:
        writing.write(b"12")
        assert not store.exists("a/one")
        writing.write(b"34")
    assert store.read("a/one") == b"1234"

    def fail() -> None:
        with store.written("a/one") as writing:
            writing.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.read("a/one") == b"1234"
    assert [*store.files_below("")] == ["a/one"]


@pytest.mark.parametrize("staged", [True, False])
def test_a_free_name_is_given_once_and_never_overwritten(
    store: OutputStore, stage: Callable[..., Stage], staged: bool
) -> None:
    one, other = stage("00003/000001-a"), stage("00003/000002-b")
    store.put_if_absent("00003.tar", file(one, b"first"), one if staged else None)
    with pytest.raises(FileExistsError):
        store.put_if_absent("00003.tar", file(other, b"second"), other if staged else None)
    assert store.read("00003.tar") == b"first"
    assert store.exists("00003.tar")
    assert store.is_taken("00003.tar")
    assert [one.name for one in store.list() if one.is_file] == ["00003.tar"]


def test_a_stage_that_was_closed_gives_no_name(store: OutputStore, stage: Callable[..., Stage]) -> None:
    late = stage()
    tar = file(late, b"late")

    def closed_meanwhile() -> None:
        store.close_stages(lambda seconds: None)

    late = Stage(late.folder, late.name, closed_meanwhile)
    if not store.is_remote:
        store.close_stages()
    with pytest.raises(FileNotFoundError):
        store.put_if_absent("00003.tar", tar, late)
    with pytest.raises(FileNotFoundError):
        store.replace("job.json", b"late", late)
    assert not store.exists("00003.tar")
    assert not store.exists("job.json")


def test_what_is_replaced_or_removed_through_a_stage_is_so_while_it_is_open(
    store: OutputStore, stage: Callable[..., Stage]
) -> None:
    opened = stage()
    store.replace("job.json", b"1", opened)
    store.replace("job.json", b"2", opened)
    assert store.read("job.json") == b"2"
    store.remove("job.json", opened)
    store.remove("job.json", opened)
    assert (store.read("job.json") == b"") if store.is_remote else not store.exists("job.json")


def test_a_store_that_can_be_written_is_prepared_and_exact(store: OutputStore, tmp_path: Path) -> None:
    store.prepare()
    store.check_can_put_if_absent(tmp_path)
    assert [*store.files_below("")] == []


def test_a_time_of_writing_is_known(store: OutputStore) -> None:
    store.replace("old", b"1")
    assert 1.7e9 < store.modified("old") < 1e10


@pytest.mark.parametrize("change", ["put", "replace", "remove"])
def test_a_lease_that_is_lost_when_it_is_confirmed_changes_nothing_in_a_bucket(
    bucket: str, tmp_path: Path, change: str, object_store: BreakableStore
) -> None:
    store = BucketStore(BucketPlace("s3", bucket, "out"))
    store.replace("job.json", b"theirs")
    lost = Stage(tmp_path, "00003/000001-a", raising)
    changes: dict[str, Callable[[], None]] = {
        "put": lambda: store.put_if_absent("00003.tar", file(lost, b"late"), lost),
        "replace": lambda: store.replace("job.json", b"late", lost),
        "remove": lambda: store.remove("job.json", lost),
    }
    with pytest.raises(LeaseLost):
        changes[change]()
    assert [*store.files_below("")] == ["job.json"]
    assert store.read("job.json") == b"theirs"
