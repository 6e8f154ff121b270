"""The list of mutations is true of the code as it stands, and so is what docs/faults.md shows of it."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.faults.mutated.mutation import Mutation
from tests.faults.mutated_checks import PARTS
from tests.faults.mutations import ROOT, survivors, table

MUTATIONS = [mutation for part in PARTS.values() for mutation in part]
MARKS = ("<!-- python -m tests.faults.mutations --table -->\n", "<!-- end -->\n")


@cache
def functions(file: str) -> set[str]:
    """The names of a file's functions."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def trouble(mutation: Mutation) -> str | None:
    """Why a mutation cannot be tried."""
    text = (ROOT / mutation.file).read_text("utf-8")
    if text.count(mutation.old) != 1:
        return f"stands {text.count(mutation.old)} times in {mutation.file}: {mutation.old}"
    without = text.replace(mutation.old, mutation.new)
    if without == text:
        return "changes nothing"
    if mutation.file.endswith(".py"):
        try:
            compile(without, mutation.file, "exec")
        except SyntaxError as error:
            return f"is no Python then: {error}"
    file, _, name = mutation.test.partition("::")
    return None if name.partition("[")[0] in functions(file) else f"no such test: {mutation.test}"


def test_every_check_stands_once_where_the_list_says_and_its_test_is_there() -> None:
    troubles = {mutation.check: trouble(mutation) for mutation in MUTATIONS}
    assert {check: what for check, what in troubles.items() if what is not None} == {}


def test_no_check_is_listed_twice() -> None:
    checks = [mutation.check for mutation in MUTATIONS]
    assert len(checks) == len({*checks})


def test_the_page_on_faults_shows_the_list() -> None:
    page = (ROOT / "docs" / "faults.md").read_text("utf-8")
    begin, end = MARKS
    shown = page.partition(begin)[2].partition(end)[0]
    assert shown == table(), "print the table again, with the command in its mark"


def test_only_a_mutation_that_its_test_sees_is_no_survivor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    for room in ("producer", "worker"):
        (tmp_path / f"{room}.py").touch()
    (tmp_path / "jobs" / "__init__.py").write_text("def limit(n): return min(n, 9)\n")
    (tmp_path / "test_limit.py").write_text(
        "from jobs import limit\n"
        "def test_small(): assert limit(3) == 3\n"
        "def test_large(): assert limit(20) == 9\n"
    )
    (tmp_path / "test_red.py").write_text("def test_red(): assert False\n")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)

    def taken_out(check: str, test: str, old: str = "min(n, 9)", new: str = "n") -> Mutation:
        return Mutation(check, "not called", "jobs/__init__.py", old, new, test)

    mutations = [
        taken_out("seen", "test_limit.py::test_large"),
        taken_out("not seen", "test_limit.py::test_small"),
        taken_out("not there", "test_limit.py::test_large", "max(n, 9)"),
        taken_out("red already", "test_red.py::test_red"),
        taken_out("no Python", "test_limit.py::test_small", new="("),
    ]
    # Its tests need no plugin, and each takes a second to load.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    said: list[str] = []
    left = survivors(tmp_path, mutations, 1, said.append)
    assert [mutation.check for mutation in left] == ["not seen", "not there", "red already", "no Python"]
    assert any(line.startswith("red (") and "seen: not called" in line for line in said), said
    assert "min(n, 9)" in (tmp_path / "jobs" / "__init__.py").read_text()
