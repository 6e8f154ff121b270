"""The commands that need no process of their own, with a real ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click.testing
import pytest

from jobs.errors import ImagemillError, Interrupted, JobError, LedgerError, ManifestError, SettingsError
from jobs.ledger.job import WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import decode_shard
from jobs.output.output import Output
from jobs.output.shard_names import FLAT
from jobs.request import ImageRequest
from producer import cli, follow, job_queue
from producer.embedded_redis import EmbeddedRedis

Call = Callable[..., click.testing.Result]


@pytest.fixture
def ledger(redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", redis_server.url)
    return Ledger(redis_server.url)


@pytest.fixture
def call(ledger: Ledger) -> Call:
    """Runs `imagemill ARGUMENTS` in this process; an error of ours is raised."""

    def run(*arguments: object) -> click.testing.Result:
        result = click.testing.CliRunner().invoke(cli.command, [str(argument) for argument in arguments])
        if isinstance(result.exception, ImagemillError):
            raise result.exception
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def manifest(folder: Path, name: str = "cats", prompts: int = 3, **keys: object) -> Path:
    given = {
        "name": name,
        "model": "instant",
        "output": str(folder / name),
        "settings": {"height": 64, "width": 64},
        "prompts": [f"picture {n}" for n in range(prompts)],
    } | keys
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(given))
    return file


def render(ledger: Ledger, count: int, failed: bool = False) -> None:
    """Plays a worker that renders a job's one shard, its first image perhaps in vain, and finishes it."""
    claim = ledger.claim("w1", WorkerState(idle_ms=9000), lease=30)
    assert claim is not None
    spec = ledger.spec(claim.job_id)
    entries = decode_shard(claim.blob, ImageRequest.from_mapping(spec.base), spec.name).entries
    output, number = Output(Path(spec.output)), int(claim.shard)
    output.shard_folder(number).mkdir()
    with output.metadata_file(number).open("w") as rows:
        for position, entry in list(enumerate(entries))[int(failed) :]:
            name = f"{FLAT.key(number, position)}.png"
            (output.shard_folder(number) / name).touch()
            rows.write(json.dumps({"file_name": name, "image_id": entry.request.image_id}) + "\n")
    failures: dict[int, dict[str, object]] = {
        0: {"shard": 0, "position": 0, "image_id": "0" * 16, "reason": "black"}
    }
    ledger.complete(claim, range(int(failed), count), failures if failed else {})
    claim = ledger.claim("w1", WorkerState(idle_ms=9000), lease=30)
    assert claim is not None and claim.kind == "finish"
    ledger.finish(claim)


@pytest.mark.parametrize("command", ["run FILE", "plan FILE", "doctor OUT --repair", "retry cats-1"])
def test_a_redis_that_strangers_could_use_is_refused_by_commands_that_come_to_it_in_their_own_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", "redis://queue.invalid/0")
    file = manifest(tmp_path)
    arguments = command.replace("FILE", str(file)).replace("OUT", str(tmp_path)).split()
    ended = click.testing.CliRunner().invoke(cli.command, arguments)
    assert isinstance(ended.exception, SettingsError), ended
    assert "beyond this machine Redis needs a password or TLS" in str(ended.exception)


def test_help_names_every_command(call: Call) -> None:
    shown = call("--help").output
    for name in (
        "submit",
        "run",
        "status",
        "watch",
        "cancel",
        "pause",
        "resume",
        "retry",
        "recover",
        "doctor",
        "schema",
    ):
        assert name in shown


def test_submit_says_what_it_stored_and_that_nobody_is_there(call: Call, tmp_path: Path) -> None:
    result = call("submit", manifest(tmp_path), manifest(tmp_path, "dogs", prompts=5))
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "cats-1: 3 images to render" in lines
    assert "dogs-1: 5 images to render" in lines
    assert "no worker is alive" in lines[-1]


def test_all_manifests_are_checked_before_the_first_is_stored(
    call: Call, ledger: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError):
        call("submit", manifest(tmp_path), manifest(tmp_path, "dogs", settings={"width": 3}))
    assert ledger.job_ids() == []


def test_submit_with_json_prints_json_alone(call: Call, tmp_path: Path) -> None:
    report = json.loads(call("submit", manifest(tmp_path), "--limit", 2, "--json").output)
    assert [(one["job_id"], one["images"]) for one in report] == [("cats-1", 2)]


def test_limit_and_sample_exclude_each_other(call: Call, ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--limit and --sample"):
        call("submit", manifest(tmp_path), "--limit", 1, "--sample", 1)
    assert call("submit", manifest(tmp_path), "--limit", 0).exit_code == 2
    assert call("submit").exit_code == 2
    assert ledger.job_ids() == []


def test_waiting_for_a_finished_job_exits_by_its_outcome_and_says_where_the_images_are(
    call: Call, ledger: Ledger, tmp_path: Path
) -> None:
    call("submit", manifest(tmp_path))
    render(ledger, 3, failed=True)
    result = call("watch", "cats-1")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith(
        f"finished, with failures: 2 images in {tmp_path / 'cats'}"
    )
    assert "1 failed (see failures.jsonl)" in result.output
    call("submit", manifest(tmp_path, "dogs"))
    render(ledger, 3)
    assert call("watch", "dogs-1").exit_code == 0


def test_status_of_all_and_of_one_for_people_and_for_scripts(
    call: Call, ledger: Ledger, tmp_path: Path
) -> None:
    assert call("status").output.splitlines()[-1] == "0 workers"
    call("submit", manifest(tmp_path))
    ledger.heartbeat("w1", {"slots": 2})
    assert "cats-1  waiting  0/3" in call("status").output
    assert call("status", "cats-1").output.startswith("cats-1: waiting\n")
    every = json.loads(call("status", "--json").output)
    assert [job["job_id"] for job in every["jobs"]] == ["cats-1"]
    assert every["workers"] == {"w1": {"slots": "2"}}
    one = json.loads(call("status", "cats-1", "--json").output)
    assert (one["total"], one["failures"], one["alive"]) == (3, {}, {"w1": {"slots": "2"}})


def test_a_job_is_paused_resumed_cancelled_and_retried(call: Call, ledger: Ledger, tmp_path: Path) -> None:
    call("submit", manifest(tmp_path))
    assert "imagemill resume cats-1" in call("pause", "cats-1").output
    assert ledger.status("cats-1").paused
    call("resume", "cats-1")
    assert not ledger.status("cats-1").paused
    call("cancel", "cats-1", "--reason", "a typo")
    assert ledger.status("cats-1").reason == "a typo"
    with pytest.raises(JobError, match="cats-1 is finishing"):
        call("retry", "cats-1")
    claim = ledger.claim("w1", WorkerState(idle_ms=9000), lease=30)
    assert claim is not None
    ledger.finish(claim)
    assert call("retry", "cats-1").output == "cats-1: 3 images sent back\n"
    render(ledger, 3)
    assert call("retry", "cats-1").output == "cats-1: nothing is missing\n"


@pytest.mark.parametrize("name", ["status", "watch", "cancel", "pause", "resume", "retry"])
def test_a_job_that_is_not_there_is_reported_with_those_there_are(
    call: Call, tmp_path: Path, name: str
) -> None:
    call("submit", manifest(tmp_path))
    with pytest.raises(JobError, match=r"no job 'cats-9'.*cats-1"):
        call(name, "cats-9")


@pytest.mark.parametrize("name", ["status", "watch", "cancel", "pause", "resume", "retry"])
def test_a_redis_that_is_not_there_is_reported_by_every_command(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`watch` goes on through an outage, but not when Redis was away from the start."""
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", "redis://127.0.0.1:1/0")
    result = click.testing.CliRunner().invoke(cli.command, [name, "cats-1"])
    assert isinstance(result.exception, LedgerError)
    assert "IMAGEMILL_REDIS_URL" in str(result.exception)


def test_the_schema_is_json(call: Call) -> None:
    assert json.loads(call("schema").output)["title"] == "imagemill manifest"


def test_an_error_of_ours_is_one_message_and_its_exit_status(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["imagemill", "status", "cats-9"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: there is no job 'cats-9'")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "stopped"), (signal.SIGTERM, 130, "stopped"), (None, 2, "No such option")],
    ids=["Ctrl-C", "SIGTERM", "a wrong option"],
)
def test_wherever_a_command_is_stopped_its_exit_status_says_so(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals | None,
    code: int,
    message: str,
) -> None:
    def connect(*_: object) -> None:
        assert number is not None
        os.kill(os.getpid(), number)

    monkeypatch.setattr(job_queue, "connect", connect)
    monkeypatch.setattr(sys, "argv", ["imagemill", "status", *([] if number else ["--colour"])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_two_manifests_of_one_output_are_refused_before_either_is_stored(
    call: Call, ledger: Ledger, tmp_path: Path
) -> None:
    file = manifest(tmp_path)
    other = file.with_name("other.yaml")
    other.write_text(file.read_text())
    with pytest.raises(JobError, match=r"cats.yaml and .*other.yaml: both write to .*one job at a time"):
        call("submit", file, other)
    assert ledger.job_ids() == []


@pytest.mark.parametrize("arguments", [("watch", "cats-1"), ("submit", "FILE", "--wait")])
def test_ctrl_c_ends_the_watching_and_says_that_the_job_goes_on(
    call: Call, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    file = manifest(tmp_path)
    call("submit", file)

    def pressed(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "time", SimpleNamespace(sleep=pressed, monotonic=lambda: 0.0))
    with pytest.raises(Interrupted, match="cats-1 continues: `imagemill watch cats-1`") as caught:
        call(*(str(file) if argument == "FILE" else argument for argument in arguments))
    assert caught.value.exit_code == 130
    assert ledger.status("cats-1").ending == ""


def test_watching_without_a_worker_says_so_on_standard_error(
    call: Call, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("submit", manifest(tmp_path))
    monkeypatch.setattr(
        follow, "time", SimpleNamespace(sleep=lambda _seconds: render(ledger, 3), monotonic=lambda: 0.0)
    )
    result = call("watch", "cats-1")
    assert result.stderr == "cats-1 waits: no worker is alive: start one with `imagemill-worker`\n"
    assert result.stdout.splitlines()[-1].startswith("finished: 3 images in ")


def test_submit_status_and_watch_load_neither_the_embedded_redis_nor_numpy() -> None:
    """`submit` runs on machines that only submit; all of it must start fast."""
    program = (
        "import sys, producer.cli, producer.submit.submit, producer.show, producer.follow, producer.progress;"
    )
    program += "print([m for m in ('producer.embedded_redis', 'numpy', 'torch', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
