"""Takes each check out of the code in turn and sees its test go red: `python -m tests.faults.mutations`.

`mutated_checks.py` lists them (a file a room in `mutated/`). The tree is copied, so that the one at hand may
be worked on meanwhile. First every test must be green in the copy as it is, then each alone must be red with
its check taken out; a test that hangs, or that cannot be collected, is not red. A line each; the last one is
JSON. The exit status is 1 unless all are red. `--table` prints what docs/faults.md holds of the list.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import click
import psutil

from tests.faults.mutated.mutation import Mutation
from tests.faults.mutated_checks import PARTS

ROOT = Path(__file__).parents[2]
SECONDS = 180
"""For a test; as much for each when those of a file run together."""
_OUTCOMES = {0: "green", 1: "red"}


class Copy:
    """A copy of the tree, its tests and what they start."""

    def __init__(self, root: Path, folder: Path) -> None:
        """Copies what git has or would take of `root`; `folder` is to hold it, and what its tests write."""
        self.tree, self._temporary, self._log = folder / "tree", folder / "tmp", folder / "log"
        self._temporary.mkdir(parents=True)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listed, cwd=root, text=True).split("\0")[:-1]:
            if (root / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, self.tree / name)
        # No bytecode: of a file changed twice in a second it would be believed.
        own = {"PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self._temporary)}
        self._environment = os.environ | own
        where = [sys.executable, "-c", "import jobs, producer, worker; print(jobs.__file__)"]
        found = subprocess.check_output(where, cwd="/", env=self._environment, text=True)
        if not Path(found.strip()).is_relative_to(self.tree):
            raise SystemExit(f"the copy's tests would import {found.strip()}: PYTHONPATH does not go first")

    def without(self, mutation: Mutation) -> str:
        """What comes of its test while the check is out, as `outcome` says it."""
        file = self.tree / mutation.file
        text = file.read_text("utf-8")
        if text.count(mutation.old) != 1:
            self._log.write_text(f"{mutation.old!r}\nstands {text.count(mutation.old)} times in {file}\n")
            return "not taken out"
        file.write_text(text.replace(mutation.old, mutation.new), "utf-8")
        try:
            return self.outcome([mutation.test])
        finally:
            file.write_text(text, "utf-8")

    def outcome(self, tests: Sequence[str]) -> str:
        """What comes of these tests until the first that fails: "green", "red", "hangs" or "does not run"."""
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.tree,
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        try:
            return _OUTCOMES.get(process.wait(SECONDS * len(tests)), "does not run")
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
            process.wait()
            return "hangs"

    def log(self) -> str:
        """The last lines of what the tests said."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-25:])


def survivors(
    root: Path, mutations: Sequence[Mutation], jobs: int, say: Callable[[str], None]
) -> list[Mutation]:
    """Those of them that no test saw. So many are tried at a time, each in a copy of the tree of its own."""
    tests: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for mutation in mutations:
        tests[_file(mutation)][mutation.test] = None
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder, ThreadPoolExecutor(jobs) as pool:
        copies = SimpleQueue[Copy]()
        for number in range(jobs):
            copies.put(Copy(root, Path(folder, str(number))))

        def comes_to(wanted: str, what: str, attempt: Callable[[Copy], str]) -> bool:
            copy, began = copies.get(), time.monotonic()
            outcome = attempt(copy)
            more = "" if outcome == wanted else f"\n{copy.log()}"
            say(f"{outcome} ({time.monotonic() - began:.0f} s): {what}{more}")
            copies.put(copy)
            return outcome == wanted

        def is_green(file: str) -> bool:
            return comes_to("green", f"{file} as it is", lambda copy: copy.outcome([*tests[file]]))

        def is_red(mutation: Mutation) -> bool:
            what = f"{mutation.check}: {mutation.taken_out_by}"
            return green[_file(mutation)] and comes_to("red", what, lambda copy: copy.without(mutation))

        green = dict(zip(tests, pool.map(is_green, tests), strict=True))
        seen = pool.map(is_red, mutations)
        return [mutation for mutation, red in zip(mutations, seen, strict=True) if not red]


def table(parts: Mapping[str, Sequence[Mutation]] = PARTS) -> str:
    """What docs/faults.md shows of the list: a table for each part."""
    lines = []
    for part, mutations in parts.items():
        lines += [f"### {part}", "", "| check | taken out by | red |", "| --- | --- | --- |"]
        lines += [f"| {one.check} | {one.taken_out_by} | {_in_words(one.test)} |" for one in mutations]
        lines.append("")
    return "\n".join(lines)


def _file(mutation: Mutation) -> str:
    return mutation.test.partition("::")[0]


def _in_words(test: str) -> str:
    file, _, function = test.partition("::")
    name, _, case = function.partition("[")
    words = f"{Path(file).stem}: {name.removeprefix('test_').replace('_', ' ')}"
    return f"{words} [{case}" if case else words


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="with this in part, check, file or test")
    parser.add_argument(
        "--jobs", type=int, default=1, help="so many at a time; tests that time things want 1"
    )
    parser.add_argument("--table", action="store_true", help="print the table of docs/faults.md, try nothing")
    given, began = parser.parse_args(), time.monotonic()
    if given.table:
        click.echo(table(), nl=False)
        return 0
    every = [(part, one) for part, mutations in PARTS.items() for one in mutations]
    chosen = [one for part, one in every if given.only in f"{part} {one.check} {one.file} {one.test}"]
    left = survivors(ROOT, chosen, given.jobs, click.echo)
    found = {
        "mutations": len(chosen),
        "red": len(chosen) - len(left),
        "survived": [one.check for one in left],
        "seconds": round(time.monotonic() - began),
    }
    click.echo(json.dumps(found, ensure_ascii=False))
    return 0 if chosen and not left else 1


if __name__ == "__main__":
    sys.exit(main())
