"""Shards of one size and one set of adapters each, made of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from jobs.entry import Entry
from jobs.request import ImageRequest
from producer.requests.expand import Identified
from producer.requests.grouping import Part, parts
from producer.requests.shard_size import ShardSize

Sizes = list[tuple[int, int]]


def entries(*sizes: tuple[int, int]) -> Iterator[Identified]:
    """Requests number 0, 1, 2, … of these heights and widths."""
    for number, (height, width) in enumerate(sizes):
        request = ImageRequest(
            prompt="", seed=number, height=height, width=width, model="instant", revision="instant-1"
        )
        yield str(number), Entry.of(request=request)


def numbers(part: Part[str]) -> list[int]:
    return [entry.request.seed for _, entry in part.entries]


SMALL, LARGE, WIDE = (64, 64), (128, 128), (64, 128)


def test_a_shard_holds_pictures_of_one_size_and_comes_when_it_is_full() -> None:
    made = list(parts(entries(SMALL, LARGE, SMALL, LARGE, WIDE, SMALL), set(), ShardSize(2)))
    assert [(numbers(part), part.taken) for part in made] == [
        ([0, 2], 3),
        ([1, 3], 4),
        ([4], 6),
        ([5], 6),
        ([], 6),
    ]


def lora(name: str) -> str:
    return f'[{{"name":"{name}","sha256":"{name * 64}","scale":0.8}}]'


def test_a_shard_holds_pictures_of_one_set_of_adapters_whose_places_stay_those_of_the_stream() -> None:
    sets = ["[]", lora("a"), lora("b"), "[]", lora("b"), lora("a")]
    found = [
        (key, Entry.of(replace(entry.request, loras=one)))
        for (key, entry), one in zip(entries(*[SMALL] * 6), sets, strict=True)
    ]
    made = list(parts(iter(found), set(), ShardSize(2)))
    assert [(numbers(part), part.places, part.taken) for part in made] == [
        ([0, 3], [0, 3], 4),
        ([2, 4], [2, 4], 5),
        ([1, 5], [1, 5], 6),
        ([], [], 6),
    ]


def test_embeddings_and_ip_adapters_part_shards_too() -> None:
    (_, plain), *_ = entries(SMALL)
    inverted = replace(
        plain.request, textual_inversions=f'[{{"name":"a","token":"<a>","sha256":"{"a" * 64}"}}]'
    )
    named = {"name": "a", "sha256": "a" * 64, "image_encoder": "e", "revision": "1"}
    adapted = replace(plain.request, ip_adapter=json.dumps([named]))
    less = replace(adapted, ip_adapter_scale=0.5)
    found = [*map(Entry.of, (inverted, adapted, adapted, less)), plain, plain]
    asked = ((str(number), entry) for number, entry in enumerate(found))
    assert [len(part.entries) for part in parts(asked, set(), ShardSize(9))] == [1, 2, 1, 2, 0]


def test_a_full_shard_comes_before_the_next_request_is_read() -> None:
    def endless() -> Iterator[Identified]:
        yield from entries(SMALL, LARGE, SMALL)
        raise AssertionError("read on")

    assert numbers(next(parts(endless(), set(), ShardSize(2)))) == [0, 2]


def test_what_is_held_is_counted_and_left_out() -> None:
    made = list(parts(entries(SMALL, SMALL, SMALL, SMALL), {"1", "3"}, ShardSize(2)))
    assert [(numbers(part), part.taken, part.held) for part in made] == [([0, 2], 3, 1), ([], 4, 2)]
    made = list(parts(entries(SMALL), {"0"}, ShardSize(2)))
    assert [(numbers(part), part.taken, part.held) for part in made] == [([], 1, 1)]


def test_of_too_many_sizes_the_shard_that_was_begun_first_ends_early() -> None:
    sizes: Sizes = [(64 + 8 * number, 64) for number in range(3)]
    made = list(parts(entries(*sizes, sizes[1], sizes[0]), set(), ShardSize(9), most_open=2))
    assert [numbers(part) for part in made] == [[0], [1, 3], [2], [4], []]


def test_a_shard_of_long_prompts_or_columns_is_full_before_it_has_all_its_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("producer.requests.grouping.MOST_TEXT", 1000)
    found = [
        (key, entry._replace(columns={"note": "x" * 1500}) if key == "4" else entry)
        for key, entry in entries(*[SMALL] * 8)
    ]
    long = [(key, Entry.of(replace(one.request, prompt="x" * 400))) for key, one in found[:4]]
    made = list(parts(iter([*long, *found[4:]]), set(), ShardSize(4)))
    assert [numbers(part) for part in made] == [[0, 1, 2], [3, 4], [5, 6, 7], []]
