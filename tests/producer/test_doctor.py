"""`imagemill doctor` as it is called: what it prints, how it exits, and when it refuses to repair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest

from jobs.errors import Interrupted, JobError, LedgerError
from jobs.expand import expand
from jobs.ledger import Ledger
from jobs.manifest import Manifest
from jobs.models import BUILT_IN
from jobs.output import Output
from producer import cli, doctor
from producer.embedded_redis import EmbeddedRedis
from worker.instant import _draw
from worker.renderer import RenderedBy
from worker.store import ShardStore

Call = Callable[..., click.testing.Result]
ENDING = "`--repair` sets it aside, then submit the manifest again"


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Three foxes, rendered."""
    output = Output((tmp_path / "out").resolve())
    output.prepare()
    told = {
        "name": "foxes", "model": "instant", "revision": "instant-1", "output": str(output.path),
        "settings": {"height": 64, "width": 64}, "prompts": ["a fox", "two foxes", "three foxes"],
    }  # fmt: skip
    manifest = Manifest.from_json(told)
    output.write_job_manifest("foxes-1", manifest.to_json())
    entries = list(expand(manifest, BUILT_IN["instant"]))
    store = ShardStore(output, 0, "1-a", entries, job_id="foxes-1", column_names=(), adopt_below=0)
    rendered_by = RenderedBy(precision="fp32", rows=16, device="cpu", versions={})
    for position, entry in enumerate(entries):
        store.save(position, _draw(entry.request).pixels, rendered_by)
    assert store.commit([])
    (output.path / "job.json").write_text('{"job_id": "foxes-1", "output": {"images": 3, "shards": 1}}')
    return output


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Runs `imagemill doctor ARGUMENTS` in this process, with no Redis to be found; an error is raised."""
    monkeypatch.delenv("IMAGEMILL_REDIS_URL", raising=False)
    monkeypatch.setenv("IMAGEMILL_RUNTIME_DIR", str(tmp_path / "runtime"))

    def run(*arguments: object) -> click.testing.Result:
        told = ["doctor", *(str(argument) for argument in arguments)]
        result = click.testing.CliRunner().invoke(cli.command, told)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_a_sound_output_is_one_line_and_0(call: Call, output: Output, monkeypatch) -> None:
    monkeypatch.chdir(output.path.parent)
    told = call("out")
    assert (told.exit_code, told.stdout) == (0, f"{output.path}: 3 images in 1 shard: nothing is wrong\n")


def test_every_problem_is_a_line_with_its_remedy_and_1(call: Call, output: Output) -> None:
    image_id = json.loads(output.metadata_file(0).read_text().splitlines()[1])["image_id"]
    (output.shard_folder(0) / "000000001.png").unlink()
    (output.shard_folder(0) / "cat.jpg").touch()
    told = call(output.path)
    assert told.exit_code == 1
    assert told.stdout.splitlines() == [
        f"00000/000000001.png: is missing: line 2 of metadata.jsonl names it; {ENDING}",
        "00000/cat.jpg: does not belong to the shard; `--repair` sets it aside",
        f".imagemill/jobs/foxes-1.json: 1 of 3 images are not there: {image_id} 'two foxes'; "
        "if its job has ended, submit it again, or `imagemill retry foxes-1`",
        f"{output.path}: 2 images in 1 shard: 3 problems",
    ]


def test_json_is_one_object_and_nothing_else(call: Call, output: Output) -> None:
    (output.shard_folder(0) / "000000001.png").unlink()
    told = call(output.path, "--json")
    assert (told.exit_code, told.stderr) == (1, "")
    result = json.loads(told.stdout)
    problems, notes = result.pop("problems"), result.pop("notes")
    assert result == {
        "output": str(output.path), "images": 2, "shards": 1, "failed": 0, "missing": {"foxes-1": 1},
        "set_aside": [], "quarantine": None,
    }  # fmt: skip
    assert notes == []
    assert [problem["kind"] for problem in problems] == ["picture", "missing"]
    assert set(problems[0]) == {"kind", "file", "line", "what", "remedy", "image_id"}


def test_a_repair_tells_what_it_did_and_what_is_left(call: Call, output: Output) -> None:
    (output.shard_folder(0) / "000000001.png").write_bytes(b"")
    (output.shard_folder(0) / "cat.jpg").touch()
    told = call(output.path, "--repair")
    assert told.exit_code == 1
    lines = told.stdout.splitlines()
    assert lines[:3] == [
        "00000/000000001.png: is empty; set aside",
        "00000/cat.jpg: does not belong to the shard; set aside",
        f"2 problems set aside in {output.private}/quarantine/1",
    ]
    assert lines[4].startswith(".imagemill/jobs/foxes-1.json: 1 of 3 images are not there: ")
    assert lines[-1] == f"{output.path}: 2 images in 1 shard: 1 problem"
    again = json.loads(call(output.path, "--repair", "--json").stdout)
    assert (again["set_aside"], again["quarantine"], len(again["problems"])) == ([], None, 1)


def test_a_repair_that_leaves_nothing_wrong_exits_with_0(call: Call, output: Output) -> None:
    (output.shard_folder(0) / "cat.jpg").touch()
    told = call(output.path, "--repair", "--json")
    result = json.loads(told.stdout)
    assert (told.exit_code, result["problems"]) == (0, [])
    assert [problem["file"] for problem in result["set_aside"]] == ["00000/cat.jpg"]
    assert result["quarantine"] == str(output.private / "quarantine" / "1")


def test_what_is_no_output_is_bad_input(call: Call, tmp_path: Path) -> None:
    assert call(tmp_path / "none").exit_code == 2
    (tmp_path / "file").touch()
    assert call(tmp_path / "file").exit_code == 2


def test_a_repair_is_refused_while_a_run_holds_the_output(call: Call, output: Output) -> None:
    (output.shard_folder(0) / "cat.jpg").touch()
    with output.locked():
        with pytest.raises(JobError, match="another `imagemill run`"):
            call(output.path, "--repair")
        assert call(output.path).exit_code == 1
    assert (output.shard_folder(0) / "cat.jpg").exists()
    assert call(output.path, "--repair").exit_code == 0


def test_a_repair_is_refused_while_the_ledger_has_an_unfinished_job_there(
    call: Call, output: Output, redis_server: EmbeddedRedis, job_spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", redis_server.url)
    (output.shard_folder(0) / "cat.jpg").touch()
    ledger = Ledger(redis_server.url)
    ledger.create(job_spec(output="/elsewhere"), "digest", 1)
    job_id, _created = ledger.create(job_spec(output=str(output.path)), "digest", 1)
    with pytest.raises(JobError, match=f"{job_id} is writing there"):
        call(output.path, "--repair")
    assert (output.shard_folder(0) / "cat.jpg").exists()
    ledger.add(job_id, ledger.incarnation(job_id), 0, 0, [], seal=True)
    claim = ledger.claim("w1", lease=30, loaded="", idle=9, load_time=0, models=())
    assert claim is not None and claim.kind == "finish"
    ledger.finish(claim)
    assert call(output.path, "--repair").exit_code == 0


def test_a_repair_is_refused_while_redis_cannot_tell(
    call: Call, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", "redis://127.0.0.1:1/0")
    (output.shard_folder(0) / "cat.jpg").touch()
    with pytest.raises(LedgerError):
        call(output.path, "--repair")
    assert call(output.path).exit_code == 1


def test_ctrl_c_is_one_message(call: Call, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "check_output", interrupted)
    with pytest.raises(Interrupted, match="stopped before the end"):
        call(output.path)
