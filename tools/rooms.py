"""Measures how the code is laid out: `python tools/rooms.py [--beside REVISION]`.

A room of a package is a module or a folder directly in it. An arrow is an import from one room into another
of the same package, wherever in the file it stands; floors are the longest way down the arrows; a circle is a
set of rooms that import each other. `--beside` measures another commit too. The last line is JSON.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jobs", "producer", "worker")
Imports = Mapping[str, frozenset[str]]
"""Each of our modules, and which of our modules it imports."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package in figures."""

    files: int
    lines: int
    longest_file: int
    rooms: int
    arrows: int
    floors: int
    circles: int


def sources(revision: str | None) -> dict[str, str]:
    """Each Python file of the product and its text, in the working tree or at a commit."""
    if revision is None:
        files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
        return {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in files}
    listed = _git("ls-tree", "-r", "--name-only", revision, *PACKAGES).splitlines()
    return {name: _git("show", f"{revision}:{name}") for name in listed if name.endswith(".py")}


def imports(texts: Mapping[str, str]) -> Imports:
    """Which of our modules each module imports, also inside functions and for types alone."""
    names = {_module(file): file for file in texts}
    return {
        module: frozenset(_imported(ast.parse(texts[file]), names)) - {module}
        for module, file in names.items()
    }


def circles(arrows: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """The sets of names that reach each other, each sorted."""

    @cache
    def reached(name: str) -> frozenset[str]:
        return frozenset(closure([name], arrows)) - {name}

    rings = {
        tuple(sorted({name, *(other for other in reached(name) if name in reached(other))}))
        for name in arrows
    }
    return [list(ring) for ring in sorted(rings) if len(ring) > 1]


def closure(first: list[str], arrows: Mapping[str, frozenset[str]]) -> set[str]:
    """All that these import, and what that imports; they themselves included."""
    found, waiting = set[str](), list(first)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += arrows.get(name, ())
    return found


def package(name: str, texts: Mapping[str, str], arrows: Imports) -> Package:
    """One package in figures."""
    lines = {file: text.count("\n") for file, text in texts.items() if file.startswith(f"{name}/")}
    rooms: dict[str, set[str]] = {}
    for module in arrows:
        if module.startswith(f"{name}."):
            here = rooms.setdefault(_room(module), set())
            here |= {_room(other) for other in arrows[module] if other.startswith(f"{name}.")} - {
                _room(module)
            }
    between = {room: frozenset(others) for room, others in rooms.items()}
    return Package(
        files=len(lines),
        lines=sum(lines.values()),
        longest_file=max(lines.values(), default=0),
        rooms=len(between),
        arrows=sum(map(len, between.values())),
        floors=_floors(between),
        circles=len(circles(between)),
    )


def _floors(between: Mapping[str, frozenset[str]]) -> int:
    """Rooms of a circle count as one floor."""
    ring_of = {room: ring[0] for ring in circles(between) for room in ring}
    folded: dict[str, set[str]] = {}
    for room, others in between.items():
        own = ring_of.get(room, room)
        folded.setdefault(own, set()).update({ring_of.get(other, other) for other in others} - {own})
    depth: dict[str, int] = {}
    for room in TopologicalSorter(folded).static_order():
        depth[room] = 1 + max((depth[other] for other in folded[room]), default=0)
    return max(depth.values(), default=0)


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _imported(tree: ast.Module, known: Mapping[str, str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from (name for name in (full if full in known else node.module,) if name in known)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    ).stdout


@dataclass(frozen=True, slots=True)
class House:
    """One state of the code in figures."""

    packages: dict[str, Package]
    modules: int
    imports: int
    circles: list[list[str]]
    """Modules that import each other, wherever they are."""
    shared_lines: int
    """Of jobs: what a worker's modules reach."""
    unshared_lines: int
    """Of jobs: what only the producer reaches."""
    worker_reaches: list[str]
    """Modules of the producer that a worker's modules import, directly or not."""


def house(revision: str | None) -> House:
    """Measures the working tree, or a commit."""
    texts = sources(revision)
    arrows = imports(texts)
    workers = closure([module for module in arrows if module.split(".")[0] == "worker"], arrows)
    lines = {_module(file): text.count("\n") for file, text in texts.items() if file.startswith("jobs/")}
    return House(
        packages={name: package(name, texts, arrows) for name in PACKAGES},
        modules=len(arrows),
        imports=sum(map(len, arrows.values())),
        circles=circles(arrows),
        shared_lines=sum(count for module, count in lines.items() if module in workers),
        unshared_lines=sum(count for module, count in lines.items() if module not in workers),
        worker_reaches=sorted(module for module in workers if module.startswith("producer.")),
    )


def main() -> int:
    """Prints the figures; the exit status is 1 where modules import each other in a circle."""
    parser = argparse.ArgumentParser(prog="python tools/rooms.py", description=__doc__)
    parser.add_argument("--beside", metavar="REVISION", help="measure this commit too")
    given = parser.parse_args()
    states = {} if given.beside is None else {given.beside: house(given.beside)}
    states["now"] = house(None)
    names = [field.name for field in fields(Package)]
    print(f"{'':10}{'package':10}" + "".join(f"{name.replace('_', ' '):>14}" for name in names))
    for state, found in states.items():
        for name, one in found.packages.items():
            print(f"{state[:8]:10}{name:10}" + "".join(f"{value:>14,}" for value in asdict(one).values()))
    for state, found in states.items():
        print(f"{state[:8]}: {found.modules} modules, {found.imports} imports, {len(found.circles)} circles")
        for ring in found.circles:
            print(f"    {' - '.join(ring)}")
        lines = (
            f"{found.shared_lines:,} lines that a worker reaches, {found.unshared_lines:,} that it does not"
        )
        print(f"    jobs: {lines}")
        print(f"    a worker's modules reach {len(found.worker_reaches)} modules of the producer")
    print(json.dumps({state: asdict(found) for state, found in states.items()}))
    return 1 if states["now"].circles else 0


if __name__ == "__main__":
    sys.exit(main())
