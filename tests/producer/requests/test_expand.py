from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.entry import Entry, derived_seed
from jobs.models.models import ModelDefaults, ModelRef, resolve_model
from jobs.request import ImageRequest
from jobs.request_template import RequestTemplate
from producer.manifest.manifest import Manifest
from producer.requests.expand import identify, sample
from tests.expanded import expand

MODEL = resolve_model("shapes-random")


def _manifest(prompts: list[Any], **others: Any) -> Manifest:
    return Manifest.from_json({"name": "cats", "model": "shapes-random", "prompts": prompts, **others})


def _entries(prompts: list[Any], **others: Any) -> list[Entry]:
    return list(expand(_manifest(prompts, **others), MODEL))


def _seeds(prompts: list[Any], **others: Any) -> list[int]:
    return [entry.request.seed for entry in _entries(prompts, **others)]


def test_a_line_takes_the_manifests_settings_and_its_own_before_them() -> None:
    line = {
        "prompt": "b",
        "width": 64,
        "negative_prompt": "",
        "guidance_scale": 1,
        "id": "x",
        "columns": {"k": 1},
    }
    defaults = {"negative_prompt": "blur", "height": 128, "scheduler": "ddim", "seed": 7}
    first, second = _entries(["a", line], settings=defaults, precision="fp32", image_format="webp")
    assert first == Entry.of(
        request=ImageRequest(
            prompt="a",
            negative_prompt="blur",
            height=128,
            scheduler="DDIM",
            seed=7,
            model="shapes-random",
            revision="shapes-random-1",
            precision="fp32",
            image_format="webp",
        )
    )
    assert second.request.negative_prompt == ""
    assert (second.request.width, second.request.height) == (64, 128)
    assert second.request.guidance_scale == 1.0
    assert (second.id, second.columns) == ("x", {"k": 1})


def test_seed_zero_is_kept() -> None:
    assert _seeds([{"prompt": "a", "seed": 0}]) == [0]
    assert _seeds(["a"], settings={"seed": 0}) == [0]
    assert _entries(["a"], settings={"seed": 0})[0].seed_ordinal is None


def test_a_seed_and_a_number_of_pictures_count_up() -> None:
    line = {"prompt": "a", "seed": 5, "images_per_prompt": 3}
    assert _seeds([line]) == [5, 6, 7]
    assert _seeds(["a", {"prompt": "b", "seed": 9}], settings={"seed": 5, "images_per_prompt": 2}) == [
        5,
        6,
        9,
        10,
    ]


def test_given_seeds_are_used_in_their_order_whatever_the_settings_say() -> None:
    line = {"prompt": "a", "seeds": [9, 0, 3]}
    assert _seeds([line], settings={"seed": 5, "images_per_prompt": 4}) == [9, 0, 3]


def test_a_null_seed_is_derived_although_the_settings_give_one() -> None:
    (entry,) = _entries([{"prompt": "a", "seed": None}], settings={"seed": 5})
    assert entry.seed_ordinal == 0
    assert entry.request.seed == derived_seed("cats", entry.request, 0)


def test_the_same_prompt_twice_gives_two_different_pictures() -> None:
    entries = _entries(["a", "b", "a", {"prompt": "a", "images_per_prompt": 2}])
    assert [entry.seed_ordinal for entry in entries] == [0, 0, 1, 2, 3]
    assert len({entry.request.image_id for entry in entries}) == 5
    for entry in entries:
        assert entry.seed_ordinal is not None
        assert entry.request.seed == derived_seed("cats", entry.request, entry.seed_ordinal)


def test_another_name_gives_other_seeds_and_the_same_name_the_same() -> None:
    def derived(name: str) -> int:
        manifest = Manifest.from_json({"name": name, "model": "instant", "prompts": ["a"]})
        (entry,) = expand(manifest, MODEL)
        return entry.request.seed

    assert derived("cats") == derived("cats")
    assert derived("cats") != derived("dogs")


_PROMPTS = st.lists(
    st.sampled_from(["a", "b"])
    | st.fixed_dictionaries(
        {"prompt": st.sampled_from(["a", "b"])},
        optional={"width": st.sampled_from([64, 128]), "images_per_prompt": st.integers(1, 3)},
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(_PROMPTS, st.data())
def test_inserting_a_line_changes_no_other_picture(prompts: list[Any], data: st.DataObject) -> None:
    before = {entry.request.image_id for entry in _entries(prompts)}
    at = data.draw(st.integers(0, len(prompts)))
    new = data.draw(st.sampled_from(["a", "new", {"prompt": "b", "seed": 3}]))
    after = {entry.request.image_id for entry in _entries([*prompts[:at], new, *prompts[at:]])}
    assert before < after
    assert len(after) == len(before) + 1


def test_an_image_twice_is_rendered_once_and_reported() -> None:
    found: list[Entry] = []
    prompts = [{"prompt": "a", "seed": 1}, {"prompt": "a", "seeds": [2, 1], "id": "again"}]
    entries = list(expand(_manifest(prompts), MODEL, found.append))
    assert [entry.request.seed for entry in entries] == [1, 2]
    assert [(entry.request.seed, entry.id) for entry in found] == [(1, "again")]


@pytest.mark.parametrize("given_first", [True, False])
def test_a_given_seed_that_meets_a_derived_one_is_one_image_and_moves_nothing(given_first: bool) -> None:
    derived = _entries(["a"])[0].request
    lines: list[Any] = [{"prompt": "a", "seed": derived.seed}, "a"]
    found: list[Entry] = []
    entries = list(expand(_manifest(lines if given_first else lines[::-1]), MODEL, found.append))
    assert [entry.request for entry in entries] == [derived]
    assert [entry.request for entry in found] == [derived]


def test_derived_seeds_that_meet_make_way_so_that_no_picture_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestTemplate, "derived_seed", lambda _mould, _prompt, ordinal: ordinal // 2)
    entries = _entries([{"prompt": "a", "images_per_prompt": 3}])
    assert [(entry.request.seed, entry.seed_ordinal) for entry in entries] == [(0, 0), (1, 2), (2, 4)]


def test_a_sweep_comes_before_settings_which_come_before_the_models_defaults() -> None:
    model = replace(MODEL, defaults=ModelDefaults(64, 72, 20, 3.0, "DDIM"))

    def asked(prompts: list[Any], **others: Any) -> list[tuple[object, ...]]:
        requests = [entry.request for entry in expand(_manifest(prompts, **others), model)]
        names = ("height", "width", "num_inference_steps", "guidance_scale", "scheduler")
        return [tuple(getattr(request, name) for name in names) for request in requests]

    assert asked(["a"]) == [(64, 72, 20, 3.0, "DDIM")]
    given = {"width": 512, "guidance_scale": 7.5, "scheduler": "LMS"}
    assert asked(["a"], settings=given) == [(64, 512, 20, 7.5, "LMS")]
    own = {"prompt": "a", "width": 128, "num_inference_steps": 50}
    assert asked([own], settings=given) == [(64, 128, 50, 7.5, "LMS")]
    sweep = {"guidance_scale": [1, 2], "scheduler": ["Euler"]}
    swept = [(64, 128, 50, 1.0, "Euler"), (64, 128, 50, 2.0, "Euler")]
    assert asked([own], settings=given, sweep=sweep) == swept


def test_swept_seeds_come_before_those_of_settings() -> None:
    assert _seeds(["a"], settings={"seed": 7}, sweep={"seed": [1, 2]}) == [1, 2]
    two = _seeds(["a"], settings={"seed": 7, "images_per_prompt": 2}, sweep={"seed": [1, 5]})
    assert two == [1, 2, 5, 6]


def test_a_sweep_gives_every_prompt_every_combination_the_last_setting_fastest() -> None:
    sweep = {"guidance_scale": [1, 3], "scheduler": ["LMS", "ddim"]}
    lines = ["a", {"prompt": "b {x}", "variables": {"x": ["1", "2"]}, "seeds": [5, 6]}]
    entries = _entries(lines, sweep=sweep)
    requests = [entry.request for entry in entries]
    combinations = [(1.0, "LMS"), (1.0, "DDIM"), (3.0, "LMS"), (3.0, "DDIM")]
    assert [(request.guidance_scale, request.scheduler) for request in requests[:4]] == combinations
    found = [
        (request.prompt, request.guidance_scale, request.scheduler, request.seed) for request in requests[4:]
    ]
    assert found == [
        (prompt, *combination, seed)
        for prompt in ("b 1", "b 2")
        for combination in combinations
        for seed in (5, 6)
    ]
    # Other settings derive other seeds, as if the lines had been written out.
    written = [
        {"prompt": "a", "guidance_scale": scale, "scheduler": scheduler} for scale, scheduler in combinations
    ]
    assert entries[:4] == _entries(written)


def test_a_swept_seed_is_where_the_pictures_of_a_prompt_begin() -> None:
    sweep = {"seed": [0, 10], "width": [64, 72]}
    entries = _entries(["a"], settings={"images_per_prompt": 2}, sweep=sweep)
    found = [(entry.request.seed, entry.request.width) for entry in entries]
    assert found == [(0, 64), (1, 64), (10, 64), (11, 64), (0, 72), (1, 72), (10, 72), (11, 72)]
    assert all(entry.seed_ordinal is None for entry in entries)


def test_the_order_of_keys_in_yaml_changes_nothing() -> None:
    """A submission is resumed at a number of images, so the order of keys must not change their order."""
    sweep = {"width": [64, 72], "height": [64, 72], "scheduler": ["LMS", "DDIM"], "seed": [1, 2]}
    line = {"prompt": "{b} {a}", "variables": {"a": ["1", "2"], "b": ["3", "4"]}, "sample": 3}
    other = line | {"variables": {"b": ["3", "4"], "a": ["1", "2"]}}
    entries = _entries([line], sweep=sweep)
    assert _entries([other], sweep=dict(reversed(sweep.items()))) == entries
    sizes = [(entry.request.height, entry.request.width) for entry in entries[:16:4]]
    assert sizes == [(64, 64), (64, 72), (72, 64), (72, 72)]


def test_ids_come_with_the_entries() -> None:
    lines = ["a", "a", {"prompt": "b", "width": 64, "seeds": [1, 2]}]
    for image_id, entry in identify(_manifest(lines), MODEL):
        assert image_id == entry.request.image_id


def test_equals_are_not_counted_through_for_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    derive, calls = RequestTemplate.derived_seed, []

    def counted(mould: RequestTemplate, prompt: str, ordinal: int) -> int:
        calls.append(ordinal)
        return derive(mould, prompt, ordinal)

    monkeypatch.setattr(RequestTemplate, "derived_seed", counted)
    assert len(_entries([{"prompt": "a", "images_per_prompt": 2}] * 50)) == 100
    assert len(calls) < 200


def test_expansion_is_lazy() -> None:
    manifest = _manifest([{"prompt": "a", "images_per_prompt": 1_000_000}])
    assert len(list(islice(expand(manifest, MODEL), 3))) == 3


def test_a_sample_is_drawn_alike_each_time_and_stands_in_order() -> None:
    entries = list(identify(_manifest([f"prompt {number}" for number in range(200)]), MODEL))
    drawn = sample(iter(entries), 20, "cats")
    assert len(drawn) == 20
    assert drawn == [entry for entry in entries if entry in drawn]
    assert drawn == sample(entries, 20, "cats")
    assert drawn != sample(entries, 20, "dogs")
    assert drawn != entries[:20]
    assert sample(entries, 500, "cats") == entries


def test_a_moved_model_folder_changes_no_picture() -> None:
    here = ModelRef("/here/sd", "sd", "sha256:0", 4, 8)
    there = ModelRef("/there/other", "other", "sha256:0", 4, 8)
    ids = [[entry.request.image_id for entry in expand(_manifest(["a", "a"]), ref)] for ref in (here, there)]
    assert ids[0] == ids[1]
