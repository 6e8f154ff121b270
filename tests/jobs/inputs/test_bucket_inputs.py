"""The files of requests that a bucket keeps: verified, never kept here, asked for again after a silence."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import InputError, InputsAway, LatentsError, OutputError
from jobs.inputs.bucket_inputs import BucketInputs
from jobs.inputs.inputs import KeptInputs, kept_name
from jobs.inputs.latents import write_input
from jobs.location import BucketPlace
from jobs.output import bucket_client
from jobs.output.bucket_client import Patience
from jobs.output.bucket_store import BucketStore
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind

PHOTO, LORA = b"a photo", os.urandom(9 << 20)
PHOTO_SHA, LORA_SHA = (hashlib.sha256(contents).hexdigest() for contents in (PHOTO, LORA))
INPUTS = ".imagemill/inputs"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(request=5, repeated=1, pauses=(0.05,)))


@pytest.fixture
def store(bucket: str) -> BucketStore:
    store = BucketStore(BucketPlace("s3", bucket, "out"))
    for sha256, contents in ((PHOTO_SHA, PHOTO), (LORA_SHA, LORA)):
        store.replace(f"{INPUTS}/{kept_name(sha256)}", contents)
    return store


@pytest.fixture
def inputs(store: BucketStore) -> BucketInputs:
    return BucketInputs(store, KeptInputs(Path("/nonexistent")))


def test_pictures_and_adapters_are_those_of_their_hashes(inputs: BucketInputs) -> None:
    assert inputs.contents(PHOTO_SHA) == PHOTO
    with inputs.private_copy(LORA_SHA) as copy:
        assert copy.read_bytes() == LORA
    assert not copy.parent.exists()
    assert inputs.has(PHOTO_SHA)
    assert not inputs.has("0" * 64)


def test_an_adapter_is_read_in_pieces(inputs: BucketInputs, object_store: BreakableStore) -> None:
    object_store.forget()
    with inputs.private_copy(LORA_SHA):
        pass
    traffic = object_store.traffic(Kind.GET)
    assert traffic.requests == 3
    assert len(LORA) <= traffic.sent < len(LORA) + (1 << 20)


def test_latents_are_those_of_their_hash(inputs: BucketInputs, store: BucketStore, tmp_path: Path) -> None:
    latents = np.arange(16, dtype="float32").reshape(4, 2, 2)
    sha = write_input(tmp_path, latents)
    store.replace(f"{INPUTS}/{sha}.npy", (tmp_path / f"{sha}.npy").read_bytes())
    assert np.array_equal(inputs.latents(sha), latents)
    store.replace(f"{INPUTS}/{sha}.npy", (tmp_path / f"{sha}.npy").read_bytes().replace(b"\x40", b"\x41"))
    with pytest.raises(LatentsError, match=f"{store.label}/{INPUTS}/{sha}.npy: does not hold what its name"):
        inputs.latents(sha)
    with pytest.raises(LatentsError, match="there is no such file"):
        inputs.latents("0" * 64)


def test_what_is_another_file_than_was_submitted_or_is_missing_is_refused_by_its_place(
    inputs: BucketInputs, store: BucketStore
) -> None:
    place = f"{store.label}/{INPUTS}/{kept_name(PHOTO_SHA)}"
    for contents, says in ((b"another", "is another file than was submitted"), (None, "is missing")):
        if contents is None:
            store.remove(f"{INPUTS}/{kept_name(PHOTO_SHA)}")
        else:
            store.replace(f"{INPUTS}/{kept_name(PHOTO_SHA)}", contents)
        with pytest.raises(InputError, match=f"{place}: {says}"):
            inputs.contents(PHOTO_SHA)
        with pytest.raises(InputError, match=f"{place}: {says}"), inputs.private_copy(PHOTO_SHA):
            pass
    with pytest.raises(InputError, match="is not a SHA-256"):
        inputs.contents("../../job.json")


def test_a_file_that_was_not_copied_is_read_where_it_lies(store: BucketStore, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"near")
    sha = hashlib.sha256(b"near").hexdigest()
    inputs = BucketInputs(store, KeptInputs(Path("/nonexistent"), {sha: str(path)}))
    assert inputs.contents(sha) == b"near"
    with inputs.private_copy(sha) as copy:
        assert copy.read_bytes() == b"near"


def test_a_silence_is_no_refusal_and_is_not_waited_for_again_at_once(
    inputs: BucketInputs, object_store: BreakableStore
) -> None:
    object_store.order(Fault(Action.CUT_BEFORE))
    with pytest.raises(InputsAway, match="cannot be read at present"):
        inputs.contents(PHOTO_SHA)
    object_store.forget()
    with pytest.raises(InputsAway, match="cannot be read at present"), inputs.private_copy(LORA_SHA):
        pass
    assert object_store.traffic().requests == 0
    with pytest.raises(OSError, match="error sending request"):
        inputs.reach()
    object_store.withdraw()
    inputs.reach()
    assert inputs.contents(PHOTO_SHA) == PHOTO


def test_a_refusal_is_not_retried(inputs: BucketInputs, object_store: BreakableStore) -> None:
    object_store.order(Fault(Action.ANSWER, status=403))
    with pytest.raises(OutputError, match="the store refuses it") as raised:
        inputs.contents(PHOTO_SHA)
    assert not isinstance(raised.value, InputsAway)
