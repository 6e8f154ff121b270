"""Where an output lies: a folder, or a place in a bucket."""

from __future__ import annotations

import pytest

from jobs.errors import InputError, OutputError
from jobs.location import BucketPlace, NoLocation, check_obstore, names_bucket
from jobs.output.output import Output
from producer.bucket_files.fetched_files import copy_of


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://sunsets", BucketPlace("s3", "sunsets", "")),
        ("s3://sunsets/", BucketPlace("s3", "sunsets", "")),
        ("s3://sunsets/sets/a b/", BucketPlace("s3", "sunsets", "sets/a b")),
        ("gs://my_bucket.org/a", BucketPlace("gs", "my_bucket.org", "a")),
        ("az://container/größe=1/x@2,(3)+4", BucketPlace("az", "container", "größe=1/x@2,(3)+4")),
    ],
)
def test_a_place_is_read_and_written_the_same(text: str, place: BucketPlace) -> None:
    assert BucketPlace.parse(text) == place
    assert str(place) == text.removesuffix("/")
    assert BucketPlace.parse(str(place)) == place
    assert names_bucket(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://host/a", "begins with none of s3://, gs://, az://"),
        ("S3://bucket/a", "begins with none of"),
        ("/data/out", "begins with none of"),
        ("s3://", "is no bucket's name: write s3://BUCKET/FOLDER"),
        ("s3://Bu cket/a", "'Bu cket' is no bucket's name"),
        ("s3://ab", "is no bucket's name"),
        ("s3://key:secret@bucket/a", "is no bucket's name"),
        ("s3://bucket//a", "'' is no folder's name there"),
        ("s3://bucket/a/../b", "'..' is no folder's name there"),
        ("s3://bucket/a/ b", "' b' is no folder's name there"),
        ("s3://bucket/a\nb", "is no folder's name there: take letters, digits"),
        ("s3://bucket/a*", "is no folder's name there"),
        ("s3://bucket/" + "ü" * 351, "is longer than 700 bytes"),
    ],
)
def test_what_names_no_place_is_refused_and_says_why(text: str, says: str) -> None:
    with pytest.raises(NoLocation) as refused:
        BucketPlace.parse(text)
    assert says in str(refused.value)


def test_a_bucket_without_its_package_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_obstore()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for refusal, named in ((OutputError, Output.at), (InputError, copy_of)):
        with pytest.raises(refusal, match=r"s3://sunsets/a: obstore, .* pip install 'imagemill\[cloud\]'"):
            named("s3://sunsets/a")


def test_a_file_may_have_a_key_that_an_output_could_not() -> None:
    place = BucketPlace.parse_file("s3://sunsets/lists/it's {a} ~1*.txt")
    assert place == BucketPlace("s3", "sunsets", "lists/it's {a} ~1*.txt")
    assert str(place) == "s3://sunsets/lists/it's {a} ~1*.txt"


@pytest.mark.parametrize(
    ("text", "root", "within"),
    [
        ("s3://b-1/sets/a", "s3://b-1/sets", True),
        ("s3://b-1/sets", "s3://b-1/sets", True),
        ("s3://b-1/sets/a", "s3://b-1", True),
        ("s3://b-1/sets2/a", "s3://b-1/sets", False),
        ("s3://b-1", "s3://b-1/sets", False),
        ("s3://b-2/sets/a", "s3://b-1", False),
        ("gs://b-1/sets/a", "s3://b-1", False),
    ],
)
def test_a_place_is_within_another_by_whole_folders_of_one_bucket(text: str, root: str, within: bool) -> None:
    assert BucketPlace.parse(text).is_within(BucketPlace.parse(root)) is within


@pytest.mark.parametrize("text", ["/data/s3://", "out", "s3:/bucket", "./s3://x", ""])
def test_a_folder_names_no_bucket(text: str) -> None:
    assert not names_bucket(text)
