"""Files of a bucket that are read from a copy on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.errors import InputError
from jobs.location import BucketPlace
from jobs.output import bucket_client
from jobs.output.bucket_client import Patience
from jobs.output.bucket_store import BucketStore
from producer.bucket_files import fetched_files, object_copies
from producer.bucket_files.fetched_files import copy_of, is_there, matching, near
from producer.bucket_files.object_copies import copies_folder, keep_copy, kept_copy, named
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind

LARGE = os.urandom(9 << 20)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(request=5, repeated=1, pauses=(0.05,)))


@pytest.fixture
def store(bucket: str) -> BucketStore:
    return BucketStore(BucketPlace("s3", bucket, ""))


def test_a_path_is_itself() -> None:
    assert near("lists/a.txt") == Path("lists/a.txt")


def test_a_file_is_copied_whole_and_messages_name_its_place(store: BucketStore) -> None:
    store.replace("lists/a b.txt", LARGE)
    place = f"{store.label}/lists/a b.txt"
    copy = near(place)
    assert copy.read_bytes() == LARGE
    assert copy == copy_of(place)
    assert named(f"{copy}:3: is wrong; {copy.parent}/x: too") == (
        f"{place}:3: is wrong; {store.label}/lists/x: too"
    )
    assert is_there(place)
    assert not is_there(f"{store.label}/lists")


def python(code: str, *arguments: str) -> str:
    """What a process prints that begins with this one's environment."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    ).stdout


AGAIN = (
    "import sys; from producer.bucket_files.fetched_files import near; print(near(sys.argv[1]).read_text())"
)


def test_another_process_takes_the_copy_while_the_object_is_the_same(
    store: BucketStore, object_store: BreakableStore
) -> None:
    place = f"{store.label}/a.txt"

    def read() -> tuple[str, int]:
        object_store.forget()
        return python(AGAIN, place).strip(), object_store.traffic(Kind.GET).requests

    store.replace("a.txt", b"first")
    assert [read(), read()] == [("first", 1), ("first", 0)]
    store.replace("a.txt", b"other")
    assert [read(), read()] == [("other", 1), ("other", 0)]
    copy_of(place).write_text("spoil")  # by another hand, as long
    assert read() == ("other", 1)
    copy_of(place).unlink()
    assert read() == ("other", 1)


def test_a_pattern_matches_files_of_its_bucket(store: BucketStore) -> None:
    for name in ("lists/a.txt", "lists/.hidden.txt", "lists/deep/er/c.txt", "lists2/a.csv"):
        store.replace(name, b"1")
    found = {
        pattern: matching(f"{store.label}/{pattern}") for pattern in ("lists/**", "*/a.*", "lists/a.txt")
    }
    assert found == {
        "lists/**": [f"{store.label}/lists/a.txt", f"{store.label}/lists/deep/er/c.txt"],
        "*/a.*": [f"{store.label}/lists/a.txt", f"{store.label}/lists2/a.csv"],
        "lists/a.txt": [f"{store.label}/lists/a.txt"],
    }
    with pytest.raises(InputError, match=r"\[z-a\]: is no pattern .*: correct it"):
        matching(f"{store.label}/[z-a]")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("https://host/a.txt", "begins with none of s3://, gs://, az://"),
        ("s3://Bucket/a.txt", "is no bucket's name"),
        ("s3://bucket", "is no file's name there: write s3://bucket/FOLDER/FILE"),
        ("s3://bucket/a/../b", "is no file's name there"),
        ("s3://bucket/a\nb", "is no file's name there"),
    ],
)
def test_what_is_no_place_of_a_file_is_said(place: str, says: str) -> None:
    with pytest.raises(InputError) as refused:
        near(place)
    assert says in str(refused.value)


def test_a_file_that_is_missing_or_cannot_be_read_is_said(
    store: BucketStore, object_store: BreakableStore
) -> None:
    with pytest.raises(InputError, match=f"{store.label}/a.txt: there is no such file"):
        near(f"{store.label}/a.txt")
    object_store.order(Fault(Action.ANSWER, status=403))
    for ask in (near, is_there, matching):
        with pytest.raises(InputError, match=r"cannot be read .the store refuses it.*credentials"):
            ask(f"{store.label}/b.txt")


def test_copies_have_a_bound_and_the_ones_not_used_for_longest_go(
    store: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_copies, "MOST", 25)
    for name in "abc":
        store.replace(name, b"ten bytes!")
    for name in "ab":
        python(AGAIN, f"{store.label}/{name}")
    states = {name: next((copy_of("s3://x-1/y").parents[3] / "states").rglob(name)) for name in "ab"}
    for name, age in (("a", 50), ("b", 100)):
        os.utime(states[name], (1e9 - age, 1e9 - age))
    near(f"{store.label}/c")
    assert [name for name in "abc" if copy_of(f"{store.label}/{name}").exists()] == ["a", "c"]
    near(f"{store.label}/b")
    store.replace("d", b"ten bytes!")
    with pytest.raises(InputError, match="would be copied here: copy the files to a folder first"):
        near(f"{store.label}/d")


KILLED = """
import os, signal
from jobs.location import BucketPlace
from producer.bucket_files.object_copies import keep_copy

def download(to):
    to.write_bytes(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)

keep_copy(BucketPlace("s3", "any", "lists/b.txt"), download)
"""


def test_what_a_killed_process_had_fetched_of_a_file_is_taken_away_later(store: BucketStore) -> None:
    for name in "ac":
        store.replace(name, b"another")
    assert subprocess.run([sys.executable, "-c", KILLED], check=False).returncode == -signal.SIGKILL
    [half] = (file for file in copies_folder().rglob("*") if file.is_file())
    near(f"{store.label}/a")
    assert half.exists()  # somebody may be at it
    os.utime(half, (1e9, 1e9))
    near(f"{store.label}/c")
    assert not half.exists()


def test_a_copy_that_another_process_takes_away_meanwhile_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    place, version = BucketPlace("s3", "any", "a.txt"), ("first", 1)

    def download(to: Path) -> tuple[str, int]:
        to.write_bytes(b"a")
        return version

    def taken_away(state: Path) -> None:
        state.unlink()
        raise FileNotFoundError(state)

    keep_copy(place, download)
    assert kept_copy(place, version) is not None
    monkeypatch.setattr("producer.bucket_files.object_copies.os.utime", taken_away)
    assert kept_copy(place, version) is None


def test_the_fetching_of_a_large_file_is_said(
    store: BucketStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetched_files, "SAID", 1 << 20)
    store.replace("large.txt", LARGE)
    near(f"{store.label}/large.txt")
    assert capsys.readouterr().err.startswith(f"fetching {store.label}/large.txt, 9 MB, to ")


def test_a_large_file_comes_over_a_slow_link(
    store: BucketStore, object_store: BreakableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it takes longer than a request may, each of its parts a quarter of that."""
    store.replace("large.txt", LARGE)
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(request=4, repeated=1, pauses=(0.05,)))
    object_store.order(Fault(Action.TRICKLE, frozenset({Kind.GET}), rate=2 << 20))
    assert near(f"{store.label}/large.txt").read_bytes() == LARGE
