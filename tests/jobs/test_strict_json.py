"""Whatever the text is, it is a JSON value or a ValueError."""

import pytest

from jobs.strict_json import strict_json


@pytest.mark.parametrize(
    "text", ['{"é": [1, null]}', '{"é": [1, null]}'.encode(), '{"é": [1, null]}'.encode("utf-16")]
)
def test_text_and_bytes_give_their_value(text: str | bytes) -> None:
    assert strict_json(text) == {"é": [1, None]}


@pytest.mark.parametrize("text", ["", "{", b"\xff", "nul", "[1] 2", "9" * 5000])
def test_what_is_not_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict_json(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_nesting_that_python_cannot_follow_is_a_value_error_too(text: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        strict_json(text)
