"""The walk of one picture through the worker, as docs/architecture.md lists it, is the code's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_function_on_the_way_from_claim_to_commit_is_in_its_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    section = page.partition("## One picture, from claim to commit\n")[2].partition("\n## ")[0]
    walk = re.findall(r"^\d+\. `([\w/]+\.py):(\w+)`", section, re.MULTILINE)
    assert 0 < len(walk) <= 12
    lacking = []
    for file, function in walk:
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if function not in names:
            lacking.append(f"{file}:{function}")
    assert lacking == []
