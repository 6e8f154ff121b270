"""Failpoints: each stands in the code, and nothing in the product arms them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from jobs.failpoints import Failpoint, Hook
from jobs.output.durable import write_atomically

PRODUCT = [file for room in ("jobs", "producer", "worker") for file in Path(room).rglob("*.py")]
SOURCES = "\n".join(file.read_text() for file in PRODUCT if file.name != "failpoints.py")


def test_every_failpoint_stands_somewhere_in_the_product() -> None:
    assert set(re.findall(r'failpoint\("([^"]+)"', SOURCES)) == set(get_args(Failpoint))


def test_nothing_in_the_product_arms_them() -> None:
    assert "from jobs.failpoints import failpoint\n" in SOURCES
    used = re.findall(r"failpoints\b.*", SOURCES)
    assert {line for line in used if line != "failpoints import failpoint"} == set()


def test_an_armed_failpoint_raises_where_it_stands_and_leaves_no_half_file(
    tmp_path: Path, arm_failpoints: Callable[[Hook], None]
) -> None:
    met = []

    def hook(name: Failpoint, path: Path | None) -> None:
        met.append((name, path))
        if name == "before rename":
            raise OSError(28, "No space left on device")

    file = tmp_path / "out" / "a.json"
    file.parent.mkdir()
    arm_failpoints(hook)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"{}")
    assert met == [("before write", file), ("before rename", file)]
    assert list(file.parent.iterdir()) == []
