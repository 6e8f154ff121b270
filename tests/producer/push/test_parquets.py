"""What the name of a pushed parquet follows from, and which columns it has."""

from __future__ import annotations

import pytest

from jobs.output.column_kinds import Kind
from producer.push.parquets import Outline


def _outline(*records: dict[str, object]) -> Outline:
    outline = Outline()
    for record in records:
        outline.add(record)
    return outline


SIZED: dict[str, object] = {"sha256": "aa", "width": 64, "note": {"x": 1}, "id": None}


@pytest.mark.parametrize(
    "columns",
    [
        {"sha256": "string", "width": "int64", "note": {"x": "int64"}, "id": None},
        {"sha256": "string", "width": "int64", "note": {"x": "int64", "y": "string"}, "id": None},
        {"sha256": "string", "width": "int64", "note": {"x": "int64"}, "id": "string"},
        {"sha256": "string", "width": "int64", "note": {"x": "int64"}, "id": None, "split": "string"},
    ],
)
def test_further_columns_and_fields_elsewhere_leave_a_parquet_as_it_is(columns: dict[str, Kind]) -> None:
    outline = _outline(SIZED)
    assert outline.columns(columns) == {
        "sha256": "string", "width": "int64", "note": {"x": "int64"}, "id": None
    }  # fmt: skip
    first = {"sha256": "string", "width": "int64", "note": {"x": "int64"}, "id": None}
    assert outline.fingerprint(columns) == outline.fingerprint(first)


def test_a_column_that_became_another_type_elsewhere_has_that_type() -> None:
    outline = _outline(SIZED)
    whole: dict[str, Kind] = {"width": "float64", "note": "string", "id": ["int64"]}
    assert outline.columns(whole) == whole


@pytest.mark.parametrize(
    "changed", [{"sha256": "ab"}, {"width": 65}, {"note": {"x": 2}}, {"id": "a"}, {"width": 64.0}]
)
def test_other_records_have_another_name(changed: dict[str, object]) -> None:
    columns: dict[str, Kind] = {"sha256": "string", "width": "int64", "note": {"x": "int64"}, "id": None}
    assert _outline(SIZED | changed).fingerprint(columns) != _outline(SIZED).fingerprint(columns)


def test_the_order_of_records_is_part_of_the_name() -> None:
    columns: dict[str, Kind] = {"sha256": "string"}
    one, other = {"sha256": "aa"}, {"sha256": "bb"}
    assert _outline(one, other).fingerprint(columns) != _outline(other, one).fingerprint(columns)
