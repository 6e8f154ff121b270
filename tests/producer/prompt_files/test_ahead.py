"""The process that reads ahead ends with the one that it reads for, whatever it waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.processes import runs
from tests.waiting import WaitUntil

ROOT = Path(__file__).parents[3]
READS = """
import sys
from producer.prompt_files.ahead import read_ahead
from tests.producer.prompt_files.test_ahead import lines_of
if __name__ == "__main__":
    for line in read_ahead(lines_of, sys.argv[1]):
        print(line, flush=True)
"""


def lines_of(file: str) -> Iterator[str]:
    """Yields the lines of a file, which may give none for a long time."""
    with open(file, encoding="utf-8") as stream:  # noqa: PTH123
        yield from stream


def test_a_reader_that_waits_for_its_file_ends_when_its_parent_is_killed(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    fifo, program = tmp_path / "prompts", tmp_path / "reads.py"
    os.mkfifo(fifo)
    program.write_text(READS, encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, program, fifo],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with fifo.open("w", encoding="utf-8") as slow:  # returns once the reader has opened it
        slow.write("a line\n")
        slow.flush()
        children = psutil.Process(parent.pid).children()
        assert any("spawn_main" in " ".join(child.cmdline()) for child in children)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not any(map(runs, children)), "the reader has ended")
