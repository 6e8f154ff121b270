import dataclasses
import json

import pytest
import zstandard

from jobs.entry import Entry, derived_seed
from jobs.errors import LedgerError
from jobs.ledger.shard import Shard, decode_shard, encode_shard
from jobs.request import ImageRequest

BASE = ImageRequest(prompt="", seed=0, model="instant", revision="instant-1", height=64, width=64)


def entry(prompt: str, ordinal: int | None = 0, seed: int = 0, **settings: object) -> Entry:
    request = dataclasses.replace(BASE, prompt=prompt, seed=seed, **settings)  # type: ignore[arg-type]
    if ordinal is not None:
        request = dataclasses.replace(request, seed=derived_seed("cats", request, ordinal))
    return Entry.of(request=request, seed_ordinal=ordinal)


def test_a_shard_comes_back_as_it_was_packed() -> None:
    entries = [
        entry("a fox"),
        entry("a fox", 1),
        entry("", None, 0, guidance_scale=1.0),
        entry("emoji 🦊\n,\"'", width=128)._replace(id="x", columns={"split": "train", "n": [1, None]}),
    ]
    shard = Shard([7, 8, 9, 10], entries)
    assert decode_shard(encode_shard(shard, BASE), BASE, "cats") == shard


def test_a_shard_is_json_without_what_can_be_derived() -> None:
    entries = [
        entry('a "fox"\n🦊'),
        entry("a fox", 2, guidance_scale=1.5, negative_prompt="blurry, \\"),
        entry("", None, 7, guidance_scale=1.5, negative_prompt="blurry, \\"),
        entry("a fox")._replace(id='"x"', columns={"a,b": [1, 0.5, None, {"ü": True}]}),
        entry(""),
    ]
    rows = [
        {"prompt": 'a "fox"\n🦊'},
        {"negative_prompt": "blurry, \\", "guidance_scale": 1.5, "prompt": "a fox", "seed_ordinal": 2},
        {"negative_prompt": "blurry, \\", "guidance_scale": 1.5, "seed": 7},
        {"prompt": "a fox", "id": '"x"', "columns": {"a,b": [1, 0.5, None, {"ü": True}]}},
        {},
    ]
    for indices, written in ((range(7, 12), 7), ([3, 900, 17, 4, 5], [3, 900, 17, 4, 5])):
        wire = {"v": 1, "indices": written, "rows": rows}
        text = zstandard.decompress(encode_shard(Shard(indices, entries), BASE)).decode()
        assert text == json.dumps(wire, ensure_ascii=False, separators=(",", ":"))


def of_lines(*lines: object) -> bytes:
    wire = {"v": 1, "indices": 0, "rows": lines}
    return zstandard.ZstdCompressor().compress(json.dumps(wire).encode())


def test_lines_of_equal_settings_share_them_and_each_is_what_it_would_be_alone() -> None:
    lines = [{"prompt": f"fox {n}", "guidance_scale": n % 3, "width": 64 + 8 * (n % 2)} for n in range(12)]
    entries = decode_shard(of_lines(*lines), BASE, "cats").entries
    assert [*entries] == [decode_shard(of_lines(line), BASE, "cats").entries[0] for line in lines]
    assert len({id(entry.settings) for entry in entries}) == 6


def test_settings_that_are_equal_numbers_of_other_types_are_told_apart() -> None:
    whole, real, minus = decode_shard(
        of_lines({"guidance_scale": 0}, {"guidance_scale": 0.0}, {"guidance_scale": -0.0}), BASE, "cats"
    ).entries
    scales = [repr(entry.request.guidance_scale) for entry in (whole, real, minus)]
    assert scales == ["0", "0.0", "-0.0"]
    with pytest.raises(LedgerError, match=r"width = 64\.0"):
        decode_shard(of_lines({"width": 64}, {"width": 64.0}), BASE, "cats")


def test_a_line_with_a_seed_of_its_own_and_a_number_among_equals_is_broken() -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        decode_shard(of_lines({"seed": 1, "seed_ordinal": 0}), BASE, "cats")


def test_indices_that_do_not_follow_one_another_are_kept() -> None:
    shard = Shard([3, 900, 17], [entry("a"), entry("b"), entry("c")])
    assert decode_shard(encode_shard(shard, BASE), BASE, "cats").indices == [3, 900, 17]


def test_derived_seeds_and_indices_cost_no_bytes() -> None:
    derived = Shard(list(range(1000)), [entry(f"a fox number {i}") for i in range(1000)])
    given = Shard(
        list(range(1000)), [entry(f"a fox number {i}", None, 2**40 + i * 7919) for i in range(1000)]
    )
    assert len(encode_shard(derived, BASE)) < len(encode_shard(given, BASE)) * 0.75


@pytest.mark.parametrize(
    "blob",
    [b"", b"junk", zstandard.compress(b"[]"), zstandard.compress(b'{"v":99}'), zstandard.compress(b"{}")],
)
def test_a_broken_or_foreign_blob_is_refused_with_the_remedy(blob: bytes) -> None:
    with pytest.raises(LedgerError, match="submit"):
        decode_shard(blob, BASE, "cats")


def test_where_files_lie_that_the_output_does_not_keep_comes_back_and_is_absent_for_other_shards() -> None:
    entries = [entry("a fox", image="a" * 64, strength=0.5)]
    shard = Shard([0], entries, inputs={"a" * 64: "/photos/día.png"})
    assert decode_shard(encode_shard(shard, BASE), BASE, "cats") == shard
    head = zstandard.ZstdDecompressor().decompress(encode_shard(Shard([0], entries), BASE))
    assert b'"inputs"' not in head


@pytest.mark.parametrize(
    "inputs", [{"a": "/a.png"}, {"a" * 64: "a.png"}, {"a" * 64: 1}, {"a" * 64: "/a\0"}, ["a" * 64], "/a.png"]
)
def test_a_shard_that_names_files_in_no_such_way_is_broken(inputs: object) -> None:
    blob = zstandard.ZstdDecompressor().decompress(encode_shard(Shard([0], [entry("a fox")]), BASE))
    text = json.dumps(json.loads(blob) | {"inputs": inputs})
    with pytest.raises(LedgerError, match="cannot be read"):
        decode_shard(zstandard.ZstdCompressor().compress(text.encode()), BASE, "cats")
