"""`imagemill doctor` on what a real `imagemill run` left: damage named, repaired, rendered again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.output.output import Output
from tests.trouble import TROUBLED
from tests.waiting import LONGEST
from tests.warm_python import BIN, warm_imagemill


class Mill:
    """A folder, a manifest of the stand-in model in it, and `imagemill` with no Redis configured."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, Output((folder / "out").resolve())
        self.manifest = folder / "foxes.yaml"
        given = {
            "name": "foxes", "model": "instant", "output": str(self.output.path), "shard_size": 8,
            "settings": {"height": 64, "width": 64},
            "prompts": [*(f"fox {n}" for n in range(39)), "!raise"],
        }  # fmt: skip
        self.manifest.write_text(json.dumps(given))

    def call(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """`imagemill ARGUMENTS`, to its end."""
        settings = {"MIN_FREE_DISK": "0", "RUNTIME_DIR": str(self.folder / "runtime"), "TORCH_THREADS": "1"}
        given = {f"IMAGEMILL_{name}": value for name, value in settings.items()}
        environment = {**os.environ, **given, **TROUBLED}
        return warm_imagemill().call(
            [BIN / "imagemill", *arguments], cwd=self.folder, env=environment, timeout=2 * LONGEST
        )

    def run(self) -> int:
        return self.call("run", self.manifest, "--gpus", "none").returncode

    def doctor(self, *options: str) -> tuple[int, dict[str, object]]:
        done = self.call("doctor", self.output.path, "--json", *options)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    def named(self) -> dict[str, str]:
        """File -> what is wrong with it."""
        _status, found = self.doctor()
        problems = found["problems"]
        assert isinstance(problems, list)
        return {problem["file"]: problem["what"] for problem in problems}


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Mill:
    mill = Mill(tmp_path_factory.mktemp("mill"))
    assert mill.run() == 1
    return mill


def test_damage_to_a_real_output_is_named_repaired_and_rendered_again(mill: Mill) -> None:
    status, report = mill.doctor()
    assert (status, report["images"], report["failed"], report["problems"]) == (0, 39, 1, [])
    out = mill.output.path
    pictures = {file.name: file.read_bytes() for file in out.glob("0*/*.png")}

    flipped = out / "00000/000000003.png"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    (out / "00000/000000005.png").write_bytes((out / "00000/000000005.png").read_bytes()[:200])
    (out / "00001/000010002.png").unlink()
    (out / "00001/fox.png").write_bytes(pictures["000010003.png"])
    lines = (out / "00002/metadata.jsonl").read_bytes().splitlines(keepends=True)
    (out / "00002/metadata.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:-20])
    row = json.loads(lines[0]) | {"file_name": "000030008.png"}
    (out / "00003/000030008.png").write_bytes(pictures["000020000.png"])
    with (out / "00003/metadata.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    for file in (out / "00004").iterdir():
        file.unlink()
    (out / "00004").rmdir()

    named = mill.named()
    assert named.keys() == {
        "00000/000000003.png", "00000/000000005.png", "00001/000010002.png", "00001/fox.png",
        "00002/metadata.jsonl", "00002/000020007.png", "00003/000030008.png", "job.json",
        ".imagemill/jobs/foxes-1.json",
    }  # fmt: skip
    assert "bytes were changed" in named["00000/000000003.png"]
    assert "bytes were changed" in named["00000/000000005.png"]
    assert "is missing" in named["00001/000010002.png"]
    assert "does not belong" in named["00001/fox.png"]
    assert "not a JSON object" in named["00002/metadata.jsonl"]
    assert "no line" in named["00002/000020007.png"]
    assert "which 00002/000020000.png is already" in named["00003/000030008.png"]
    assert named["job.json"] == "counts 5 shards, 4 are there; those after 00003 are gone"
    assert named[".imagemill/jobs/foxes-1.json"].startswith("12 of 40 images are not there")

    status, report = mill.doctor("--repair")
    assert (status, report["missing"]) == (1, {"foxes-1": 12})
    assert [problem["kind"] for problem in report["problems"]] == ["lost", "missing"]
    assert mill.run() == 1
    status, report = mill.doctor()
    assert (status, report["images"], report["failed"], report["problems"]) == (0, 39, 1, [])
    again = {file.name: file.read_bytes() for file in out.glob("0*/*.png")}
    assert set(again.values()) == set(pictures.values())


def test_the_doctor_loads_neither_torch_nor_celery(mill: Mill) -> None:
    code = (
        f"import sys; sys.argv[1:] = ['doctor', {str(mill.output.path)!r}]\n"
        "from producer.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "producer" in done.stderr.split()
    assert not set(done.stderr.split()) & {"torch", "diffusers", "celery", "PIL", "numpy", "worker"}


def test_what_a_limit_left_out_is_not_missing(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    assert mill.call("run", mill.manifest, "--gpus", "none", "--limit", "5").returncode == 0
    status, report = mill.doctor()
    assert (status, report["problems"]) == (0, [])


def test_a_prompt_file_that_grew_leaves_a_sound_output_sound(tmp_path: Path) -> None:
    mill, prompts = Mill(tmp_path), tmp_path / "prompts.txt"
    prompts.write_text("a fox\ntwo foxes\n")
    report = json.loads(mill.manifest.read_text())
    mill.manifest.write_text(json.dumps(report | {"prompts": ["no fox"], "prompts_from": "prompts.txt"}))
    assert mill.run() == 0
    status, report = mill.doctor()
    assert (status, report["images"], report["notes"]) == (0, 3, [])
    with prompts.open("a") as file:
        file.write("three foxes\n")
    status, report = mill.doctor()
    (note,) = report["notes"]
    assert (status, report["problems"], report["missing"]) == (0, [], {})
    assert f"since foxes-1 was submitted, {prompts} changed; `imagemill submit FILE`" in note
    assert json.loads(mill.call("plan", mill.manifest, "--json").stdout)["new"] == 1
    assert mill.run() == 0
    status, report = mill.doctor()
    assert (status, report["images"], report["notes"]) == (0, 4, [])


def test_an_export_that_lost_a_shard_is_not_sound(mill: Mill) -> None:
    target = mill.folder / "exported"
    exported = mill.call("export", mill.output.path, target, "--to", "files", "--shard-size", "10")
    assert exported.returncode == 0, exported.stderr
    assert mill.call("doctor", target).returncode == 0
    shutil.rmtree(target / "00001")
    done = mill.call("doctor", target)
    assert done.returncode == 1
    assert "numbered without a gap: no shard is called 00001" in done.stdout
