"""Lists of LoRAs as manifests and rows write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from producer.manifest.written_loras import WrittenLora, canonical_loras, with_lora_files, written_loras


def canonical(value: Any) -> Any:
    return json.loads(canonical_loras(value))


def test_files_names_and_files_of_models_are_held_with_their_scales() -> None:
    of_hub = {"model": "org/name", "weight_name": "a.safetensors", "revision": "main"}
    assert canonical([{"file": "ink.safetensors", "scale": 1}, {"name": "grain"}, of_hub]) == [
        {"file": "ink.safetensors", "scale": 1.0},
        {"name": "grain", "scale": 1.0},
        of_hub | {"scale": 1.0},
    ]


def test_text_is_names_with_scales_or_json() -> None:
    expected = [{"name": "ink", "scale": 0.8}, {"name": "grain", "scale": 1.0}]
    assert canonical("ink:0.8, grain") == expected
    assert canonical(["ink:.8", "grain"]) == expected
    assert canonical(json.dumps(expected)) == expected
    assert canonical("styles/ink.safetensors:-2") == [{"file": "styles/ink.safetensors", "scale": -2.0}]
    assert canonical("") == canonical([]) == []


def test_a_canonical_text_means_itself() -> None:
    text = canonical_loras([{"scale": 0, "file": "ink.safetensors"}])
    assert canonical_loras(text) == text == '[{"file":"ink.safetensors","scale":0.0}]'
    assert written_loras(text) == (WrittenLora(file="ink.safetensors", scale=0.0),)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"file": "a.safetensors"}, "must be a list of LoRAs"),
        ([{"scale": 1}], "number 1 needs one of file, name (in lora_folder) and model (with weight_name)"),
        ([{"file": "a", "name": "b"}], "needs one of file, name"),
        (["a", {"file": "a", "weight": 1}], "number 2 has a key weight: use file, name, model, weight_name"),
        ([{"model": "org/name"}], "needs `weight_name`, the file in its `model`"),
        ([{"file": "a", "revision": "main"}], "has a revision without `model`: remove it"),
        ([{"file": "a", "scale": 11}], "has scale = 11: it must be a number, -10 to 10"),
        ([{"file": "a", "scale": True}], "has scale = True"),
        ([{"file": 3}], "has a file that is no text"),
        (["ink:strong"], "what follows the colon must be its scale, as in ink:0.8"),
        ([7], "must be a mapping {file, scale}, or text"),
        ("[{", "is no JSON: write [{"),
        (["a"] * 17, "holds 17 LoRAs, and there may be 16"),
    ],
)
def test_what_is_wrong_is_said_with_its_number(value: Any, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        canonical_loras(value)
    assert says in str(caught.value)


def test_files_and_folders_of_models_get_other_paths_and_repositories_stay() -> None:
    listed = [
        {"file": "ink.safetensors"},
        {"model": "./m", "weight_name": "a.safetensors"},
        {"model": "org/m", "weight_name": "a.safetensors"},
        {"name": "grain"},
    ]
    text = canonical_loras(listed)
    moved = [{"file": "/x/ink.safetensors"}, {"model": "/x/m", "weight_name": "a.safetensors"}, *listed[2:]]
    assert with_lora_files(text, lambda path: f"/x/{path}") == canonical_loras(moved)
    assert with_lora_files(canonical_loras(moved), lambda path: path.removeprefix("/x/")) == text
