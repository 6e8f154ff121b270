"""What a shell may do to a command: an 8-bit locale, a closed or full output, a folder that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.farm import Farm

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}
PROGRAM = {
    "imagemill": "from producer.cli import main; main()",
    "imagemill-worker": "from worker.cli import main; main()",
}


def in_shell(
    farm: Farm, line: str, *, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """What a shell's line comes to; `$IM` and `$WORKER` are the two programs."""
    programs = {
        name: f"{sys.executable} -c '{code}'"
        for name, code in zip(("IM", "WORKER"), PROGRAM.values(), strict=True)
    }
    for name, command in programs.items():
        line = line.replace(f"${name}", command)
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env=farm.environment() | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=farm.folder if cwd is None else cwd,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("locale", [LATIN, ASCII], ids=["latin-1", "ASCII"])
def test_every_listing_is_printed_in_any_locale(farm: Farm, locale: dict[str, str]) -> None:
    farm.submit(["caf\u00e9 \u2013 \u4e16"])
    for command in ("status", "plan cats.yaml"):
        done = in_shell(farm, f"$IM {command}", **locale)
        assert (done.returncode, done.stderr) == (0, b""), command
        assert b"cats" in done.stdout


def test_json_is_whole_in_any_locale(farm: Farm) -> None:
    name = "caf\u00e9 \u4e16"
    farm.submit(1, output=str(farm.folder / name))
    for locale in (LATIN, ASCII):
        done = in_shell(farm, "$IM status --json", **locale)
        (job,) = json.loads(done.stdout)["jobs"]
        assert job["output"] == str(farm.folder / name)


def test_a_full_output_costs_one_line_that_says_what_was_done(farm: Farm) -> None:
    farm.manifest(4)
    told = "error: standard output cannot be written (No space left on device)"
    for command, done in {
        "status": "",
        "submit --json cats.yaml": "; all the same, submitted: cats-1 (`imagemill status` shows it)",
        "pause cats-1": "; all the same, cats-1 is paused",
    }.items():
        ended = in_shell(farm, f"$IM {command} > /dev/full")
        assert (ended.returncode, ended.stderr.decode()) == (2, f"{told}{done}\n"), command


def test_a_closed_output_is_no_error_and_nothing_else_gets_its_number(farm: Farm) -> None:
    farm.manifest(4)
    ended = in_shell(farm, "$IM submit cats.yaml 0>&- >&- 2>&-")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert farm.status("cats-1").total == 4


def test_a_reader_that_leaves_is_no_error(farm: Farm) -> None:
    ended = in_shell(farm, "$IM schema | head -1")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"{\n", b"")


@pytest.mark.parametrize("command", ["$IM plan ../cats.yaml", "$WORKER --gpus none"])
def test_a_working_folder_that_is_gone_costs_one_line(farm: Farm, command: str) -> None:
    farm.manifest(4, output="out")
    gone = farm.folder / "gone"
    gone.mkdir()
    ended = in_shell(farm, f"rmdir ../gone; {command}", cwd=gone)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.decode() == (
        "error: the folder that this was started in has been removed: `cd` to one that is there\n"
    )


def test_an_output_whose_path_is_too_long_costs_one_line(farm: Farm) -> None:
    farm.manifest(4, output="/".join(["d" * 200] * 30))
    ended = in_shell(farm, "unset IMAGEMILL_OUTPUT_ROOT; $IM plan cats.yaml")
    assert ended.returncode == 2, ended
    (line,) = ended.stderr.decode().splitlines()
    assert line.startswith("error: ")
    assert line.endswith("no path may be so long: name a shorter one")
    assert len(line) < 250
    ended = in_shell(farm, "$IM submit cats.yaml")
    assert ended.returncode == 2
    (line,) = ended.stderr.decode().splitlines()
    assert "File name too long" in line
    assert farm.client.keys("*") == []


def test_standard_streams_stay_those_of_the_caller_where_it_has_its_own() -> None:
    """A test or a notebook that calls `main` reads what it prints."""
    code = (
        "import io, sys\nfrom jobs.command_line import odd_surroundings\nsys.stdout = held = io.StringIO()\n"
        "with odd_surroundings():\n    print('here')\nsys.exit(held.getvalue() != 'here\\n')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
