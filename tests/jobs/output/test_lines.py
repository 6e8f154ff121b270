"""Lines of metadata: their keys, and the index that a record says it has."""

from __future__ import annotations

from typing import Any

from jobs.output.lines import HeldLines, columns_of, has_index, key_of, line_key, numbered, place_of

IMAGE = "00112233445566ff"


def record(**others: Any) -> dict[str, Any]:
    return {"file_name": "0.png", "text": "a fox", "image_id": IMAGE, **others}


def test_a_line_without_id_and_columns_has_the_key_of_its_picture() -> None:
    assert line_key(IMAGE, None, {}) == line_key(IMAGE, None, {"note": None}) == int(IMAGE, 16)


def test_lines_of_one_picture_differ_by_id_columns_and_the_types_of_their_values() -> None:
    lines: list[tuple[str | None, dict[str, Any]]] = [
        (None, {}), ("1", {}), (None, {"id": "1"}), (None, {"a": 1}), (None, {"a": 2}), (None, {"a": True}),
        (None, {"a": 1.0}), (None, {"a": [1]}), (None, {"b": 1}), ("1", {"a": 1}),
    ]  # fmt: skip
    assert len({line_key(IMAGE, *line) for line in lines}) == len(lines)
    # A column of several types is written as JSON text.
    assert line_key(IMAGE, None, {"a": {"b": 1}}) == line_key(IMAGE, None, {"a": '{"b": 1}'})
    assert line_key(IMAGE, "1", {"a": 1, "b": 2}) == line_key(IMAGE, "1", {"b": 2, "a": 1, "c": None})


def test_a_record_has_the_key_of_the_line_that_it_was_written_for() -> None:
    written = record(index=3, seed=1, id="1", note="x", other=None, job_id="f-1", rendered_rows=1, sha256="")
    assert columns_of(written) == {"note": "x", "other": None}
    assert key_of(written) == line_key(IMAGE, "1", {"note": "x"})


def test_an_index_of_ours_stands_before_the_settings_and_a_users_after_them() -> None:
    ours, users = record(index=3, seed=1, id=None), record(seed=1, id=None, index="third")
    assert (has_index(ours), place_of(ours)) == (True, 3)
    assert (has_index(users), place_of(users)) == (False, None)
    assert columns_of(users) == {"index": "third"}
    assert list(numbered(ours, 9).items())[2:5] == [("image_id", IMAGE), ("index", 9), ("seed", 1)]
    assert numbered(users, 9) == record(index=9, seed=1, id=None, column_index="third")


def test_an_output_holds_pictures_and_lines_of_them() -> None:
    held = HeldLines([record(id="1"), record(id="2"), {**record(), "image_id": "f" * 16}])
    assert held.pictures == 2
    assert IMAGE in held
    assert "e" * 16 not in held
    assert [held.has_line(IMAGE, id, {}) for id in ("1", "2", "3", None)] == [True, True, False, False]
    assert held.has_line("f" * 16, None, {})
    assert [held.take_line(IMAGE, "3", {}), held.take_line(IMAGE, "3", {})] == [True, False]
