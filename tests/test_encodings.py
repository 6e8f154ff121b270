"""Text is read and written as UTF-8 whatever the locale: each call that opens text names its encoding."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("jobs", "producer", "worker", "tools", "benchmarks")
PLACES = {"read_text": 0, "write_text": 1, "open": 2, "fdopen": 2, "NamedTemporaryFile": 2}
"""Calls that may open text, and where their encoding stands if it has no name."""
MODES = {"open": 0, "fdopen": 1, "NamedTemporaryFile": 0}
"""Where their mode stands, after a file's name for the function `open`."""


def called(node: ast.Call) -> tuple[str, bool]:
    """The name of what is called, and whether it is a method."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr, True
    return (node.func.id, False) if isinstance(node.func, ast.Name) else ("", False)


def opens_text_by_the_locale(node: ast.Call) -> bool:
    name, method = called(node)
    words = {word.arg: word.value for word in node.keywords}
    if "text" in words and "encoding" not in words:  # of a subprocess
        return isinstance(words["text"], ast.Constant) and words["text"].value is True
    if name not in PLACES or any(word.arg in ("encoding", None) for word in node.keywords):
        return False
    if name in ("read_text", "write_text"):
        return len(node.args) <= PLACES[name]
    if method and ast.unparse(node.func) in (
        "os.open",
        "Image.open",
        "click.open",
        "webbrowser.open",
        "tarfile.open",
    ):
        return False
    place = MODES[name] + (name == "open" and not method)
    modes = [word.value for word in node.keywords if word.arg == "mode"] or node.args[place : place + 1]
    if not modes:
        return name != "NamedTemporaryFile"
    return not (isinstance(modes[0], ast.Constant) and "b" in str(modes[0].value))


def calls(source: str) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))


@pytest.mark.parametrize("room", ROOMS)
def test_no_text_is_opened_in_the_locales_encoding(room: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)[:60]}"
        for file in sorted((ROOT / room).rglob("*.py"))
        for call in calls(file.read_text("utf-8"))
        if opens_text_by_the_locale(call)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("file.read_text()", True), ("file.read_text('utf-8')", False), ("file.write_text(text)", True),
        ("file.write_text(text, encoding='ascii')", False), ("open(name)", True), ("open(name, 'rb')", False),
        ("open(name, 'w', encoding='utf-8')", False), ("path.open()", True), ("path.open('wb')", False),
        ("path.open('w')", True), ("run(ls, text=True)", True),
        ("run(ls, encoding='utf-8')", False), ("os.fdopen(fd, 'ab')", False), ("os.open(name, flags)", False),
    ],
)  # fmt: skip
def test_the_check_knows_text_from_bytes(source: str, found: bool) -> None:
    assert [opens_text_by_the_locale(call) for call in calls(source)] == [found]
