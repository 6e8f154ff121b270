"""An output can be uploaded as it is: it names no folder, host or user of those who made it."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.waiting import LONGEST

BIN = Path(sys.executable).parent
ROWS = [{"prompt": "a fox", "meta": {"score": 1}}, {"prompt": "a hare", "width": 65}, {"prompt": "an owl"}]


class Home:
    """Somebody's home on a machine, with a job in it whose folders nobody else should hear of."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home" / "anna-zz9"
        self.elsewhere = folder / "vault-zz9"
        self.work = self.home / "secret-zz9"
        for one in (self.elsewhere, self.work / "prompts", self.home / "tmp"):
            one.mkdir(parents=True)
        self.output = self.work / "out"

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        given = {"HOME": self.home, "XDG_CACHE_HOME": self.home / "cache", "TMPDIR": self.home / "tmp"}
        own = {"IMAGEMILL_MIN_FREE_DISK": "0", "USER": "anna-zz9", "LOGNAME": "anna-zz9"}
        environment = {**os.environ, **{name: str(path) for name, path in given.items()}, **own}
        return subprocess.run(
            [BIN / arguments[0], *arguments[1:]], env=environment, cwd=self.work, text=True,
            capture_output=True, timeout=LONGEST, check=False,
        )  # fmt: skip

    def told(self) -> Iterator[tuple[str, bytes]]:
        """Every file of the output, and what its parquets hold when they are unpacked."""
        for file in sorted(self.output.rglob("*")):
            yield str(file.relative_to(self.output)), b""
            if file.is_file():
                yield file.name, file.read_bytes()
            if file.suffix == ".parquet":
                table = pyarrow.parquet.read_table(file)
                yield file.name, repr((table.schema.metadata, table.to_pylist())).encode()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.usefixtures("troubled")
@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_no_byte_of_an_output_tells_who_made_it_and_where(home: Home, layout: str) -> None:
    lines = "\n".join(map(json.dumps, ROWS))
    (home.work / "prompts" / "rows.jsonl").write_text(lines)
    (home.elsewhere / "rows.jsonl").write_text(lines.replace("a ", "one "))
    sources = [{"file": "prompts/*.jsonl", "columns": ["meta"]}]
    sources.append({"file": str(home.elsewhere / "rows.jsonl"), "columns": ["meta"]})
    manifest = {
        "name": "foxes", "model": "instant", "output": str(home.output), "layout": layout, "shard_size": 2,
        "settings": {"height": 64, "width": 64, "num_inference_steps": 2}, "on_bad_row": "skip",
        "prompts": ["!raise", "a cat"], "prompts_from": sources,
    }  # fmt: skip
    (home.work / "foxes.yaml").write_text(json.dumps(manifest))
    done = home.call("imagemill", "run", "foxes.yaml", "--gpus", "none")
    assert (home.output / "job.json").exists(), done.stderr
    host = socket.gethostname()
    secrets = ["zz9", f"@{host}", f"{host}-", str(home.work)]
    # A short word is everywhere in a picture.
    secrets += [word for word in (host, getpass.getuser(), str(Path.home())) if len(word) > 6]
    names = set()
    for name, data in home.told():
        names.add(name)
        for secret in secrets:
            assert secret.encode() not in data, f"{name}: {secret}"
            assert secret not in name
    assert {"job.json", "foxes-1.json", "foxes-1.skipped.txt", "failures.jsonl", "README.md"} <= names
    kept = json.loads((home.output / ".imagemill/jobs/foxes-1.json").read_text())
    assert [source["file"] for source in kept["prompts_from"]] == ["prompts/*.jsonl", "…/rows.jsonl"]
    assert set(kept["files"]) == {"prompts/rows.jsonl", "…/rows.jsonl"}
    assert json.loads((home.output / "job.json").read_text())["workers"] == 1
    skipped = (home.output / ".imagemill/jobs/foxes-1.skipped.txt").read_text().splitlines()
    assert [row.split(": ")[0] for row in skipped] == ["prompts/rows.jsonl:2", "…/rows.jsonl:2"]


def run_foxes(home: Home) -> None:
    """Renders a manifest with a prompt file beside it."""
    (home.work / "rows.jsonl").write_text(json.dumps(ROWS[0]))
    manifest = {
        "name": "foxes", "model": "instant", "output": str(home.output),
        "settings": {"height": 64, "width": 64, "num_inference_steps": 2},
        "prompts_from": {"file": "rows.jsonl", "columns": ["meta"]},
    }  # fmt: skip
    (home.work / "foxes.yaml").write_text(json.dumps(manifest))
    assert home.call("imagemill", "run", "foxes.yaml", "--gpus", "none").returncode == 0


def test_doctor_finds_the_files_of_a_manifest_again_where_it_was_submitted_and_in_its_folder(
    home: Home,
) -> None:
    run_foxes(home)
    found = home.call("imagemill", "doctor", str(home.output))
    assert (found.returncode, "cannot be known" in found.stdout) == (0, False)
    (home.home / "cache").rename(home.home / "forgotten")
    found = home.call("imagemill", "doctor", str(home.output))
    assert (found.returncode, "cannot be known" in found.stdout) == (0, False)
    (home.work / "rows.jsonl").rename(home.elsewhere / "rows.jsonl")
    found = home.call("imagemill", "doctor", str(home.output))
    assert "run `imagemill doctor` in the manifest's folder, or `imagemill plan FILE`" in found.stdout


def test_a_manifest_that_moved_with_its_files_is_the_same_submission(home: Home) -> None:
    run_foxes(home)
    for name in ("rows.jsonl", "foxes.yaml"):
        (home.work / name).rename(home.elsewhere / name)
    again = home.call("imagemill", "plan", str(home.elsewhere / "foxes.yaml"))
    assert again.returncode == 0
    assert "unchanged  1" in again.stdout
