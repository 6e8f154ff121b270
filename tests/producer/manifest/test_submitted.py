"""A manifest as it was submitted: the same file as ever, read back as it was, and nothing else is read."""

import json
from typing import Any

import pytest

from jobs.errors import ManifestError
from jobs.models.models import BUILT_IN, ModelDefaults, ModelRef, resolve_model
from producer.manifest.manifest import Manifest
from producer.manifest.submitted import Change, SubmittedManifest
from producer.requests.expand import identify

TOLD = {
    "name": "foxes", "model": "instant", "revision": "instant-1", "shard_size": 8,
    "prompts": ["a fox", {"prompt": "two foxes", "seed": 0}], "prompts_from": [{"file": "/a/p.csv"}],
}  # fmt: skip
MANIFEST = Manifest.from_json(TOLD)
FILES = {"/a/p.csv": "5f" * 32}


@pytest.mark.parametrize("files", [None, {}, FILES])
@pytest.mark.parametrize("narrowed", ["", "--limit 10", "--sample 3"])
def test_what_is_reported_as_json_is_read_back_as_it_was(narrowed: str, files: dict[str, str] | None) -> None:
    kept = SubmittedManifest(MANIFEST, narrowed, files)
    text = json.dumps(kept.to_json()).encode()
    assert SubmittedManifest.parse(text) == kept
    assert json.dumps(SubmittedManifest.parse(text).to_json()).encode() == text


def test_it_is_the_manifest_with_two_more_keys_behind() -> None:
    found = SubmittedManifest(MANIFEST, "--limit 2", FILES).to_json()
    assert list(found.items()) == [*MANIFEST.to_json().items(), ("narrowed", "--limit 2"), ("files", FILES)]


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


def test_what_was_kept_before_models_had_defaults_asks_for_the_images_of_then() -> None:
    """Then every manifest had Stable Diffusion's, written out; the ids are of that version."""
    then = {
        "negative_prompt": "", "height": 512, "width": 512, "num_inference_steps": 50, "guidance_scale": 7.5,
        "scheduler": "LMS", "seed": None, "images_per_prompt": 1,
    }  # fmt: skip
    given = {"name": "cats", "model": "shapes", "prompts": ["a red circle", {"prompt": "b", "seed": 3}]}
    kept = SubmittedManifest.from_json(given | {"settings": then})
    ids = [image_id for image_id, _entry in identify(kept.manifest, resolve_model("shapes"))]
    assert ids == ["0d57a4ffcf7485a1", "06e61e404e683d8e"]
    assert kept.to_json()["settings"] == then
    # The doctor knows a kept model by its revision alone; what a manifest leaves open is Stable Diffusion's.
    revision = BUILT_IN["shapes"].revision
    alone = ModelRef("shapes", "shapes", revision, None, None)
    assert [one for one, _entry in identify(SubmittedManifest.from_json(given).manifest, alone)] == ids


def test_what_a_manifest_leaves_open_is_kept_as_the_model_had_it() -> None:
    manifest = Manifest.from_json({"name": "cats", "model": "shapes", "prompts": ["a"]})
    defaults = ModelDefaults(64, 64, 20, 3.0, "DDIM")
    settled = manifest.model_copy(update={"settings": manifest.settings.settled(defaults)})
    assert SubmittedManifest(settled).to_json()["settings"] == {
        "negative_prompt": "", "height": 64, "width": 64, "num_inference_steps": 20, "guidance_scale": 3.0,
        "scheduler": "DDIM", "seed": None, "images_per_prompt": 1,
    }  # fmt: skip
    assert "height" not in manifest.to_json()["settings"]
    assert Manifest.from_json(manifest.to_json()) == manifest
