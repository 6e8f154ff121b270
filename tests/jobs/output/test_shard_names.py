"""Names of shards: numeric order is their order, no folder gets too many, webdataset's braces read them."""

from __future__ import annotations

import itertools

import pytest
from webdataset.shardlists import expand_urls

from jobs.output.shard_names import FLAT, UNBOUNDED, Part, ShardNames

FORMS = [FLAT, UNBOUNDED, ShardNames(6), ShardNames(7)]
SOME = [0, 1, 9, 10, 999, 1_000, 1_001, 9_999, 10_000, 12_345, 99_999]
MORE = [100_000, 149_421, 999_999]


@pytest.mark.parametrize("names", FORMS)
def test_a_name_tells_its_number_and_stands_where_its_number_does(names: ShardNames) -> None:
    numbers = [*SOME, *(MORE if names.nested else [])]
    assert [names.number(names.name(number)) for number in numbers] == numbers
    assert sorted(map(names.name, numbers)) == [*map(names.name, numbers)]
    assert sorted(names.key(n, 12) for n in numbers) == [names.key(n, 12) for n in numbers]


def test_flat_and_nested_names_look_so() -> None:
    assert (FLAT.name(3), FLAT.key(3, 12)) == ("00003", "000030012")
    assert (UNBOUNDED.name(100_000), UNBOUNDED.number("100000")) == ("100000", 100_000)
    assert (ShardNames(6).name(149_421), ShardNames(6).key(149_421, 12)) == ("149/421", "1494210012")
    assert (ShardNames(7).name(149_421), ShardNames(7).key(149_421, 12)) == ("0149/421", "01494210012")


@pytest.mark.parametrize(
    "name", ["", "3", "0003", "000000", "00003 ", "٠٠٠٠٣", "0000a", "149/421", "149/42", "149/4210", "14/421"]
)
def test_another_name_is_no_shard(name: str) -> None:
    assert FLAT.number(name) is None
    assert ShardNames(6).number(name) == (149_421 if name == "149/421" else None)


def test_the_forms_have_no_name_in_common() -> None:
    for one, other in itertools.permutations([FLAT, ShardNames(6), ShardNames(7)], 2):
        assert [other.number(one.name(number)) for number in SOME] == [None] * len(SOME)


def test_a_path_tells_the_shard_that_it_belongs_to() -> None:
    nested = ShardNames(6)
    assert FLAT.part("00003/metadata.jsonl") == FLAT.part("00003") == Part(3, "")
    assert FLAT.part("00003.tar") == FLAT.part("00003.tar/000030000.png") == Part(3, "tar")
    assert nested.part("149/421/1494210000.png") == nested.part("149/421") == Part(149_421, "")
    assert nested.part("149/421.parquet") == Part(149_421, "parquet")
    assert {*map(FLAT.part, ("job.json", "00003.", "00003.png", "00003.tar.tmp", "149/421.tar"))} == {None}
    assert {*map(nested.part, ("149", "149.tar", "00003.tar", "149/421.", "149/421.png"))} == {None}


def test_a_picture_tells_its_place() -> None:
    assert FLAT.position(3, "000030012.png") == ShardNames(6).position(149_421, "1494210012.jpg") == 12
    others = ("000040012.png", "0000030012.png", "x.png", None)
    assert {FLAT.position(3, name) for name in others} == {None}


@pytest.mark.parametrize("each", [1, 2])
def test_no_folder_gets_more_than_ten_thousand_entries(each: int) -> None:
    for shards in (1, 4_950, 4_951, 9_900, 9_901, 150_000, 999_999, 1_000_001, 9_900_000):
        names = ShardNames.for_shards(shards, each)
        assert names.most(each) >= shards
        if not names.nested:
            assert each * shards <= 9_900
        else:
            # A thousand shards of two layouts are 3,000 entries of a folder.
            assert int(names.name(shards - 1).partition("/")[0]) < 9_900


def test_other_digits_are_refused() -> None:
    for digits in (4, 8):
        with pytest.raises(ValueError, match="must be 5, 6 or 7"):
            ShardNames(digits)


@pytest.mark.parametrize(
    ("first", "last", "braces"),
    [
        (0, 149_421, "{000..148}/{000..999}.tar::149/{000..421}.tar"),
        (0, 149_999, "{000..149}/{000..999}.tar"),
        (0, 999, "000/{000..999}.tar"),
        (5, 7, "000/{005..007}.tar"),
        (998, 2_001, "000/{998..999}.tar::001/{000..999}.tar::002/{000..001}.tar"),
    ],
)
def test_braces_name_every_shard_once_and_in_order(first: int, last: int, braces: str) -> None:
    names = ShardNames(6)
    assert names.braces(first, last) == braces
    assert expand_urls(braces) == [f"{names.name(number)}.tar" for number in range(first, last + 1)]
    assert expand_urls(FLAT.braces(3, 12)) == [f"{FLAT.name(number)}.tar" for number in range(3, 13)]
