"""A manifest as it was submitted: the same file as ever, read back as it was, and nothing else is read."""

import json
from typing import Any

import pytest

from jobs.errors import ManifestError
from producer.manifest.manifest import Manifest
from producer.manifest.submitted import Change, SubmittedManifest

TOLD = {
    "name": "foxes", "model": "instant", "revision": "instant-1", "shard_size": 8,
    "prompts": ["a fox", {"prompt": "two foxes", "seed": 0}], "prompts_from": [{"file": "/a/p.csv"}],
}  # fmt: skip
MANIFEST = Manifest.from_json(TOLD)
FILES = {"/a/p.csv": "5f" * 32}


@pytest.mark.parametrize("files", [None, {}, FILES])
@pytest.mark.parametrize("narrowed", ["", "--limit 10", "--sample 3"])
def test_what_is_told_as_json_is_read_back_as_it_was(narrowed: str, files: dict[str, str] | None) -> None:
    kept = SubmittedManifest(MANIFEST, narrowed, files)
    text = json.dumps(kept.to_json()).encode()
    assert SubmittedManifest.parse(text) == kept
    assert json.dumps(SubmittedManifest.parse(text).to_json()).encode() == text


def test_it_is_the_manifest_with_two_more_keys_behind() -> None:
    told = SubmittedManifest(MANIFEST, "--limit 2", FILES).to_json()
    assert list(told.items()) == [*MANIFEST.to_json().items(), ("narrowed", "--limit 2"), ("files", FILES)]


def test_what_an_early_version_kept_without_them_is_read() -> None:
    kept = SubmittedManifest.parse(json.dumps(TOLD).encode())
    assert (kept.manifest, kept.narrowed, kept.files) == (MANIFEST, "", None)
    assert (kept.limit, kept.sample) == (None, None)
    assert "files" not in kept.to_json()


@pytest.mark.parametrize(
    ("narrowed", "limit", "sample"), [("--limit 10", 10, None), ("--sample 7", None, 7), ("", None, None)]
)
def test_the_option_is_taken_apart(narrowed: str, limit: int | None, sample: int | None) -> None:
    kept = SubmittedManifest(MANIFEST, narrowed)
    assert (kept.limit, kept.sample) == (limit, sample)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"7", b"\xff", b"[" * 100_000])
def test_what_is_no_mapping_is_no_kept_manifest(text: bytes) -> None:
    with pytest.raises(ManifestError, match=r"not JSON|not a mapping"):
        SubmittedManifest.parse(text)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"narrowed": None}, "narrowed: neither --limit N nor --sample N"),
        ({"narrowed": "--limit many"}, "narrowed: neither"),
        ({"narrowed": "--limit 1\n"}, "narrowed: neither"),
        ({"narrowed": f"--sample {10**30}"}, "narrowed: neither"),
        ({"files": ["/a/p.csv"]}, "files: not a mapping"),
        ({"files": {"/a/p.csv": 7}}, "files: not a mapping"),
        ({"shard_size": 0}, "shard_size"),
        ({"colour": "red"}, "colour"),
        ({"name": None}, "name"),
    ],
)
def test_what_is_wrong_in_it_is_named(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ManifestError, match=what):
        SubmittedManifest.from_json({**TOLD, **changes})


def test_what_differs_is_named_keys_first_then_files() -> None:
    kept = SubmittedManifest(MANIFEST, "--limit 10", {"/a/p.csv": "5f" * 32, "/a/q.csv": "00" * 32})
    other = Manifest.from_json(TOLD | {"shard_size": 9, "mode": "fast"})
    now = SubmittedManifest(other, "", {"/a/q.csv": "11" * 32, "/a/r\n.csv": "5f" * 32})
    assert [str(change) for change in kept.changes(now)] == [
        "mode changed",
        "narrowed changed",
        "shard_size changed",
        "/a/p.csv is gone",
        "/a/q.csv changed",
        "/a/r\\n.csv came",
    ]
    assert [change.is_file for change in kept.changes(now)] == [False] * 3 + [True] * 3


def test_an_equal_submission_has_no_changes_and_files_that_nobody_gives_are_not_compared() -> None:
    kept = SubmittedManifest(MANIFEST, "--limit 10", FILES)
    assert kept.changes(SubmittedManifest(MANIFEST, "--limit 10", FILES)) == []
    assert kept.changes(SubmittedManifest(MANIFEST, "--limit 10")) == []


def test_files_that_an_early_version_did_not_keep_count_as_none() -> None:
    assert SubmittedManifest(MANIFEST).changed_files(FILES) == [Change("/a/p.csv", "came", is_file=True)]
