"""Which adapters are the same ones: names are for people."""

from __future__ import annotations

from dataclasses import replace

from jobs.adapters import NO_ADAPTERS, Adapters
from jobs.entry import Entry
from jobs.request import ImageRequest

BASE = ImageRequest(prompt="", seed=0, model="instant", revision="instant-1")


def lora(name: str, sha256: str = "a", scale: float = 0.8) -> str:
    return f'[{{"name":"{name}","sha256":"{sha256 * 64}","scale":{scale}}}]'


def test_one_file_under_two_names_is_the_same_adapter_and_shares_shards() -> None:
    one, same, *others = (
        replace(BASE, loras=text)
        for text in (lora("ink"), lora("copy of ink"), lora("ink", "b"), lora("ink", scale=0.7))
    )
    assert len({one.adapters, same.adapters}) == 1
    assert one.loras != same.loras  # metadata says what was written
    assert one.image_id == same.image_id
    assert Entry.of(one).group == Entry.of(same).group
    assert len({one.adapters, *(other.adapters for other in others), NO_ADAPTERS}) == 4
    assert len({Entry.of(other).group for other in (one, *others, BASE)}) == 4


def test_a_token_and_its_file_tell_embeddings_apart_and_their_name_does_not() -> None:
    def carried(name: str, token: str) -> Adapters:
        return Adapters("[]", f'[{{"name":"{name}","token":"{token}","sha256":"{"a" * 64}"}}]')

    assert carried("cat", "<x>") == carried("dog", "<x>") != carried("cat", "<y>")
