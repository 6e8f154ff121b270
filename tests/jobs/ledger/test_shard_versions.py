"""Settings and files of pictures on the wire: they arrive, and an earlier worker refuses them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import zstandard

from jobs.entry import Entry
from jobs.ledger.shard import Shard, decode_shard, encode_shard
from jobs.request import SETTINGS, ImageRequest
from tests.jobs.test_request import OTHER

BASE = ImageRequest(prompt="", seed=0, model="instant", revision="instant-1", height=64, width=64)
LATER = {name: OTHER[name] for name in SETTINGS[SETTINGS.index("image") :]}


def version_of(blob: bytes) -> object:
    return json.loads(zstandard.ZstdDecompressor().decompress(blob))["v"]


@pytest.mark.parametrize("name", sorted(LATER))
def test_a_setting_of_this_version_travels_and_makes_the_shard_one_that_earlier_workers_refuse(
    name: str,
) -> None:
    request = replace(BASE, prompt="a", **{name: LATER[name]})
    blob = encode_shard(Shard([0], [Entry.of(request, seed_ordinal=None)], in_order=True), BASE)
    [entry] = decode_shard(blob, BASE, "cats").entries
    assert entry.request == request
    assert version_of(blob) == 2


def test_a_shard_of_what_earlier_workers_know_is_one_that_they_read() -> None:
    request = replace(BASE, prompt="a", num_inference_steps=7, init_latents="0" * 64)
    assert version_of(encode_shard(Shard([0], [Entry.of(request)], in_order=True), BASE)) == 1


def test_files_that_the_output_does_not_keep_travel_with_the_shard() -> None:
    paths = {"1" * 64: "/photos/a.jpg"}
    shard = Shard([0], [Entry.of(replace(BASE, prompt="a", image="1" * 64))], in_order=True, inputs=paths)
    blob = encode_shard(shard, BASE)
    assert decode_shard(blob, BASE, "cats").inputs == paths
    assert version_of(blob) == 2
