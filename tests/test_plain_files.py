"""Nobody opens a file of others but by jobs/plain_file.py: found in the source, so that none is forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[1]
OWN: Final = {
    "jobs/plain_file.py": "the one place",
    "jobs/connection.py": "the connection file, opened without following links",
    "jobs/ledger/job_lookup.py": "imagemill's own script",
    "jobs/ledger/lua_functions.py": "imagemill's own scripts",
    "jobs/lock.py": "/proc",
    "jobs/pipelines/pipelines.py": "imagemill's own table",
    "producer/embedded_redis.py": "the log of a server that it started, in a folder of its own",
    "producer/manifest/starter.py": "imagemill's own example",
    "producer/own_worker.py": "the log of a worker that it started, in the user's cache",
    "worker/own_memory.py": "/proc",
    "worker/renderers/device.py": "/proc",
    "worker/renderers/memory.py": "/proc and /sys",
}
"""Files that read without it -> what they read."""


def _reads(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that open a file to read it: read_text, read_bytes, and open unless it makes or adds to one."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name):
            name, mode_at = function.id, 1
        elif isinstance(function, ast.Attribute):
            name, mode_at = function.attr, 0
            if isinstance(function.value, ast.Name) and function.value.id in ("os", "Image"):
                continue  # descriptors of locks and folders; Pillow gets what was read
        else:
            continue
        if name in ("read_text", "read_bytes"):
            yield node
        elif name == "open":
            given = [one.value for one in node.keywords if one.arg == "mode"] + node.args[
                mode_at : mode_at + 1
            ]
            mode = given[0].value if given and isinstance(given[0], ast.Constant) else "r"
            if not set(str(mode)) & {"w", "x", "a"}:
                yield node


def _places() -> Iterator[tuple[str, int]]:
    for room in ("jobs", "producer", "worker"):
        for file in sorted((ROOT / room).rglob("*.py")):
            for call in _reads(ast.parse(file.read_text("utf-8"))):
                yield file.relative_to(ROOT).as_posix(), call.lineno


def test_files_of_others_are_opened_in_one_place() -> None:
    found = [f"{file}:{line}" for file, line in _places() if file not in OWN]
    assert found == [], (
        "read them by jobs.plain_file, which waits for no pipe and takes no more than it is told"
    )


def test_every_exception_is_one() -> None:
    assert {file for file, _line in _places()} | {"jobs/plain_file.py"} == OWN.keys()


def test_what_reads_is_found() -> None:
    reading = [
        "p.read_text()",
        "p.read_bytes()",
        "p.open()",
        "p.open('rb')",
        "open(p)",
        "open(p, mode='rb')",
        "p.open(mode)",
    ]
    writing = [
        "p.open('wb')",
        "open(p, 'x')",
        "p.open(mode='a')",
        "os.open(p, 0)",
        "Image.open(p)",
        "p.write_text('')",
    ]
    assert [len(list(_reads(ast.parse(one)))) for one in reading] == [1] * len(reading)
    assert [len(list(_reads(ast.parse(one)))) for one in writing] == [0] * len(writing)
