"""`imagemill-worker` starts fast and says in one message what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.settings import Settings
from tests.waiting import LONGEST
from tests.warm_python import BIN, warm_imagemill
from worker.cli import command

ROOT = Path(__file__).parents[2]


def _worker(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "imagemill-worker", *options]
    return warm_imagemill().call(command, cwd=ROOT, env={**os.environ, **variables}, timeout=LONGEST)


def test_help_names_every_option_but_the_hidden_one() -> None:
    shown = _worker("--help")
    assert shown.returncode == 0
    for option in (
        "--model",
        "--gpus",
        "--batch-size",
        "--mixed-hardware",
        "--concurrency",
        "--name",
        "--log-format",
    ):
        assert option in shown.stdout
    assert "lifeline" not in shown.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from worker.cli import command\n"
        "try: command(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'celery', 'redis', 'pydantic', 'diffusers'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        (["--gpus", "none"], {}, "error: no Redis to connect to"),
        (["--gpus", "x"], {"IMAGEMILL_REDIS_URL": "redis://127.0.0.1:1/0"}, "error: --gpus x: must be auto"),
        (["--name", "a b"], {"IMAGEMILL_REDIS_URL": "redis://127.0.0.1:1/0"}, "error: --name a b: use"),
        ([], {"IMAGEMILL_REDIS_URL": "http://:hunter2@a"}, "error: IMAGEMILL_REDIS_URL = http://***@a"),
        ([], {"IMAGEMILL_BATCH_SIZE": "0"}, "error: IMAGEMILL_BATCH_SIZE = '0'"),
        (["--batch-size", "1"], {}, "Invalid value for '--batch-size' / '--rows'"),
        ([], {"IMAGEMILL_BATCH_SIZE": "1"}, "error: IMAGEMILL_BATCH_SIZE = '1'"),
        ([], {"IMAGEMILL_ROWS": "1"}, "error: IMAGEMILL_ROWS = '1'"),
        (
            [],
            {"IMAGEMILL_TASK_SLOTS": "3", "IMAGEMILL_CONCURRENCY": "3"},
            "error: IMAGEMILL_TASK_SLOTS: is now IMAGEMILL_CONCURRENCY, which is set too: remove one of them",
        ),
        (["--rows", "1"], {}, "Invalid value for '--batch-size' / '--rows'"),
        (["--slots", "0"], {}, "Invalid value for '--concurrency' / '--slots'"),
        (["--model", "a,b"], {}, "may not have a comma in its name"),
        (["render"], {}, "Error: give --request JSON or --from FILE, one of the two"),
        (["render", "--request", "{}", "--from", __file__], {}, "Error: give --request JSON or --from FILE"),
        (["render", "--from", "no-such.png"], {}, "File 'no-such.png' does not exist"),
        (
            ["render", "--from", __file__],
            {},
            "test_cli.py: is no PNG, JPEG or WebP: name a file that imagemill wrote",
        ),
        (["--mixed-hardware", "render", "--request", "{}"], {}, "--mixed-hardware has no effect on `render`"),
        (["--lifeline-fd", "99"], {}, "error: lifeline: file descriptor 99 is not a pipe"),
    ],
)
def test_what_is_wrong_is_one_message_and_exit_status_2(
    options: list[str], variables: dict[str, str], message: str
) -> None:
    done = _worker(*options, **variables)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    "options", [["--batch-size", "8", "--concurrency", "3"], ["--rows", "8", "--slots", "3"]]
)
@pytest.mark.parametrize("variables", [{}, {"IMAGEMILL_ROWS": "4", "imagemill_task_slots": "5"}])
def test_options_by_either_name_come_before_the_environment_and_reach_the_worker_processes(
    options: list[str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[Settings] = []

    def note(settings: Settings, **_: object) -> int:
        chosen.append(settings)
        return 0

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("worker.host.imagemill_worker.run_worker", note)
    done = CliRunner().invoke(command, options)
    assert (done.exit_code, done.output) == (0, "")
    [settings] = chosen
    assert (settings.batch_size, settings.concurrency) == (8, 3)
    child = settings.environment()
    assert (child["IMAGEMILL_BATCH_SIZE"], child["IMAGEMILL_CONCURRENCY"]) == ("8", "3")
    assert not {"IMAGEMILL_ROWS", "imagemill_task_slots"} & child.keys()


def test_a_reader_that_goes_away_is_met_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", "--help"],
            cwd=ROOT,
            stdout=write_end,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")
