from __future__ import annotations

from array import array
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import OutputError
from jobs.output.line_order import Places, as_kept, write_order
from jobs.output.output import Output


def record(number: int) -> dict[str, Any]:
    """One of a line without an id or columns, whose key is therefore its image_id."""
    return {"image_id": f"{number:016x}"}


def test_each_line_has_its_first_place_in_the_order_that_was_kept(tmp_path: Path) -> None:
    output = Output(tmp_path)
    write_order(output, "foxes-2", BytesIO(as_kept(array("Q", [7, 2**64 - 1, 7, 5]))))
    places = Places(output, "foxes-2")
    assert [places.of(record(number)) for number in (5, 7, 2**64 - 1, 6)] == [3, 0, 1, None]


def test_an_order_that_is_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    output = Output(tmp_path)
    write_order(output, "foxes-2", BytesIO(as_kept(array("Q", [7, 5]))[:-3]))
    said = r"foxes-2\.order: is no order of lines \(5 bytes after the last key\)"
    with pytest.raises(OutputError, match=said):
        Places(output, "foxes-2")
