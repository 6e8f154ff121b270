"""A row is right exactly when PromptLine says so, with and without pydantic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.errors import ManifestError
from producer.manifest.line import line_of
from producer.manifest.parts import ROW_FIELDS, ROW_VALUES, DefaultSettings, PromptLine, Sweep
from producer.manifest.prompt_source import PromptSource
from producer.manifest.relations import ColumnKinds
from producer.prompt_files.row_reader import RowReader

NAMES = {field: field for field in ROW_FIELDS}

_NUMBERS = [-1, 0, 1, 2, 7, 8, 9, 16, 100, 101, 500, 504, 1000, 1001, 8192, 8193, 8200, 10**6, 10**6 + 1]
_NUMBERS += [2**63 - 1, 2**63]
_NEAR = st.sampled_from(_NUMBERS)
_ANY = (
    st.none()
    | st.booleans()
    | _NEAR
    | st.integers()
    | st.floats()
    | st.sampled_from([0.999, 1.0, 100.0, 100.001, 512.0])
    | st.text(max_size=5)
    | st.text(st.characters(categories=["Cs", "Cc", "Lu"]), max_size=3)
    | st.sampled_from(["LMS", "lms", "k_euler_a", "DDIMScheduler", "nothing", "7"])
    | st.lists(_NEAR | st.booleans() | st.text(max_size=2), max_size=3)
    | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
)


def _rows(columns: tuple[str, ...] = (), defaults: DefaultSettings | None = None) -> RowReader:
    source = PromptSource(
        file="x.jsonl", columns={name: name for name in columns}, empty_prompt="unconditional"
    )
    given = DefaultSettings() if defaults is None else defaults
    return RowReader(Path("x.jsonl"), source, NAMES, given, Sweep(), ColumnKinds(), texts=False)


def test_every_field_of_a_row_has_its_rule() -> None:
    assert set(ROW_FIELDS) <= set(PromptLine.model_fields)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(ROW_FIELDS), _ANY)
def test_what_is_let_through_without_pydantic_is_what_pydantic_makes_of_it(field: str, value: Any) -> None:
    plain = ROW_VALUES[field].plain(value)
    values = {"prompt": "a", field: value}
    if plain is None:
        return
    asked = getattr(PromptLine.model_validate(values), field)
    assert (plain, type(plain)) == (asked, type(asked))


@pytest.mark.parametrize("field", ROW_FIELDS)
def test_no_number_near_a_bound_is_let_through_that_pydantic_refuses(field: str) -> None:
    for number in (*_NUMBERS, *map(float, _NUMBERS), 0.999, 100.001, True):
        for value in (number, [number], str(number)):
            plain = ROW_VALUES[field].plain(value)
            if plain is not None:
                assert getattr(PromptLine.model_validate({"prompt": "a", field: value}), field) == plain


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "a fox 🦊"), ("negative_prompt", ""), ("height", 8), ("width", 8192),
        ("num_inference_steps", 1),
        ("guidance_scale", 1), ("guidance_scale", 100.0), ("scheduler", "k_euler_a"), ("seed", 0),
        ("images_per_prompt", 1_000_000), ("seeds", [2**63 - 1, 0]), ("id", "7"),
    ],
)  # fmt: skip
def test_common_values_need_no_pydantic(field: str, value: object) -> None:
    assert ROW_VALUES[field].plain(value) is not None


@settings(max_examples=600, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*ROW_FIELDS, "score"], _ANY)))
def test_a_row_is_taken_and_refused_as_a_prompt_of_the_manifest_is(row: Mapping[str, Any]) -> None:
    found = {name: value for name, value in row.items() if value is not None}
    score = found.pop("score", None)
    # What a file says in ways of its own.
    if "prompt" in row and row["prompt"] is None:
        found["prompt"] = ""
    if type(found.get("seed")) is int and found["seed"] == -1:
        found["seed"] = None
    if type(found.get("id")) is int:
        found["id"] = str(found["id"])
    columns = {} if score is None else {"score": score}
    line = _rows(("score",)).line(row, 1)
    try:
        asked = PromptLine.model_validate(found | {"columns": columns})
    except ValidationError:
        assert isinstance(line, ManifestError)
        assert str(line)
        return
    if isinstance(line, ManifestError):
        assert "the last of" in str(line)
        return
    expected = line_of({name: getattr(asked, name) for name in asked.model_fields_set}, DefaultSettings())
    assert line == expected
    assert json.dumps(line.settings, sort_keys=True) == json.dumps(expected.settings, sort_keys=True)


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["prompt", "id", "width", "score", "other"], _ANY)))
def test_a_row_that_is_handed_over_as_its_prompt_says_nothing_else(row: Mapping[str, Any]) -> None:
    for columns in ((), ("score",)):
        reader = _rows(columns, DefaultSettings(images_per_prompt=3))
        reader.line({"prompt": "the first row"}, 1)
        prompt = reader.prompt_alone(row)
        if prompt is not None:
            assert prompt.strip()
            assert reader.line(row, 1) == line_of({"prompt": prompt}, DefaultSettings(images_per_prompt=3))
    reader = _rows()
    reader.line({"prompt": "the first row"}, 1)
    assert reader.prompt_alone({"prompt": "a fox 🦊"}) == "a fox 🦊"


def test_a_seed_for_all_rows_is_checked_with_each_of_them() -> None:
    reader = _rows((), DefaultSettings(seed=2**63 - 1, images_per_prompt=2))
    assert reader.prompt_alone({"prompt": "a"}) is None
    assert "the last of 2 seeds" in str(reader.line({"prompt": "a"}, 1))


def test_all_that_is_wrong_with_a_row_is_reported() -> None:
    found = _rows().line({"prompt": "a", "width": 9, "height": 9}, 1)
    assert (
        str(found)
        == "height = 9: must be a multiple of 8 (8 or 16); width = 9: must be a multiple of 8 (8 or 16)"
    )


def test_a_column_that_is_no_json_is_refused() -> None:
    found = _rows(("when",)).line({"prompt": "a", "when": object()}, 1)
    assert str(found).startswith("when")
