"""What is wrong is reported once, with its remedy, before anything is written; and nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.ledger.job import JobStatus
from tests.ports import free_port
from tests.waiting import LONGEST, WaitUntil

BIN = Path(sys.executable).parent
Finish = Callable[..., JobStatus]
Told = subprocess.CompletedProcess[str]


def check_reported_once(message: Told, *parts: str) -> None:
    """Exit status 2 and one message on standard error that has every part; no traceback."""
    assert message.returncode == 2, message
    assert message.stdout == ""
    assert message.stderr.startswith("error: "), message.stderr
    assert message.stderr.count("error: ") == 1, message.stderr
    assert "Traceback" not in message.stderr
    assert len(message.stderr.splitlines()) <= 4, message.stderr
    for part in parts:
        assert part in message.stderr, (part, message.stderr)


def check_nothing_written(farm) -> None:
    """Neither Redis nor the disk knows of a submission."""
    assert not farm.output.exists()
    assert farm.ledger.job_ids() == []
    assert farm.client.keys("imagemill*") == []


@pytest.mark.parametrize("command", ["submit", "run"])
def test_a_wrong_manifest_is_reported_by_line_and_column(farm, command: str) -> None:
    file = farm.folder / "wrong.yaml"
    file.write_text(
        "name: wrong\nmodel: instant\noutput: out\nsettings:\n  width: 500\nprompts:\n"
        "  - a fox\n  - {prompt: a hen, seeed: 3}\n"
    )
    done = farm.command(command, "wrong.yaml")
    check_reported_once(
        done, "wrong.yaml:5:10: settings.width = 500: must be a multiple of 8 (496 or 504)", "wrong.yaml:8:"
    )
    assert "prompts[1].seeed" in done.stderr
    check_nothing_written(farm)


@pytest.mark.parametrize(
    ("contents", "part"),
    [
        (b"", "wrong.yaml:1:1: is empty: a manifest has at least name, model and prompts"),
        (b"name: [unclosed\n", "wrong.yaml:2:1"),
        (b"name: cats\nname: dogs\nmodel: instant\nprompts: [x]\n", "wrong.yaml:2:1: name"),
        (b"name: cats\nmodel: instant\nprompts: []\n", "wrong.yaml:3:10: prompts"),
    ],
)
def test_what_is_no_manifest_is_refused(farm, contents: bytes, part: str) -> None:
    (farm.folder / "wrong.yaml").write_bytes(contents)
    check_reported_once(farm.command("submit", "wrong.yaml"), part)
    check_nothing_written(farm)


def test_a_missing_file_is_named_and_the_good_one_beside_it_is_not_stored(farm) -> None:
    good = farm.manifest(4)
    check_reported_once(farm.command("submit", good, "absent.yaml"), "absent.yaml: there is no such file")
    check_nothing_written(farm)


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("./no-such-folder", ["cats.yaml:1:", "no-such-folder: there is no such folder"]),
        ("./runtime", ["holds no model_index.json", "save_pretrained()"]),
        ("instnat", ["cats.yaml:1:", 'model = "instnat": is no model', "shapes-random"]),
        ("acme/none", ["model = acme/none", "the hub cannot be asked", "give `revision: <commit>`"]),
    ],
)
def test_a_model_that_is_not_there_is_reported_with_what_there_is(
    farm, monkeypatch: pytest.MonkeyPatch, model: str, parts: list[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(farm.folder / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    check_reported_once(farm.command("submit", farm.manifest(4, model=model)), *parts)
    check_nothing_written(farm)


@pytest.mark.parametrize("command", [["submit", "cats.yaml"], ["status"], ["run", "cats.yaml"]])
def test_a_redis_that_is_away_is_reported(farm, command: list[str]) -> None:
    farm.manifest(4)
    done = farm.command(*command, redis_url=f"redis://:secret@127.0.0.1:{free_port()}/0")
    check_reported_once(done, "Redis does not answer", "Connection refused", "IMAGEMILL_REDIS_URL")
    assert "secret" not in done.stderr
    check_nothing_written(farm)


@pytest.mark.parametrize("command", [["submit", "cats.yaml"], ["status"]])
def test_a_wrong_password_is_reported(farm, command: list[str]) -> None:
    farm.manifest(4)
    _credentials, place = farm.server.url.rsplit("@", 1)
    done = farm.command(*command, redis_url=f"redis://:wrong@{place}")
    check_reported_once(done, "Redis refuses the password", "check IMAGEMILL_REDIS_URL")
    check_nothing_written(farm)


def test_a_url_that_is_not_redis_is_reported_without_its_password(farm) -> None:
    done = farm.command("status", redis_url="http://user:secret@example.org/0")
    check_reported_once(done, "IMAGEMILL_REDIS_URL", "must look like redis://")
    assert "secret" not in done.stderr


def test_a_full_redis_is_reported_and_the_same_command_goes_through_once_it_has_room(
    farm, finished: Finish
) -> None:
    manifest = farm.manifest(4)
    farm.client.config_set("maxmemory", 1)
    done = farm.command("submit", manifest)
    check_reported_once(done, "Redis is full", "maxmemory")
    check_nothing_written(farm)
    farm.client.config_set("maxmemory", 0)
    assert farm.command("submit", manifest).returncode == 0
    farm.start_worker()
    finished("cats-1")
    farm.check_exact("cats-1", 4)


def test_a_redis_that_fills_up_in_the_middle_of_a_job_delays_it(
    farm, finished: Finish, wait_until: WaitUntil
) -> None:
    farm.start_worker(instant_seconds=0.2)
    job_id = farm.submit(64)
    wait_until(lambda: farm.status(job_id).done >= 8, "the job is under way")
    farm.client.config_set("maxmemory", 1)
    wait_until(lambda: "Redis is full" in farm.log("w1"), "the worker says what it waits for")
    farm.client.config_set("maxmemory", 0)
    finished(job_id)
    farm.check_exact(job_id, 64)
    # An acknowledgement that meets a full Redis can end Celery's process; it is started again, and no task
    # of ours raised.
    assert "raised unexpected" not in farm.log("w1")


@pytest.mark.parametrize("place", ["in-the-way", "in-the-way/below/it", "/proc/imagemill"])
@pytest.mark.parametrize("command", ["submit", "run"])
def test_an_output_that_cannot_be_written_is_reported(farm, command: str, place: str) -> None:
    (farm.folder / "in-the-way").write_text("mine")
    done = farm.command(command, farm.manifest(4, output=place), output_root="/")
    check_reported_once(done, f"output {(farm.folder / place)} cannot be written", "name another output")
    assert (farm.folder / "in-the-way").read_text() == "mine"
    check_nothing_written(farm)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda file: np.save(file, np.zeros((4, 8, 8), np.float32)), "[4, 8, 8]"),
        (lambda file: file.write_bytes(b"not numpy at all"), "is not a .npy file"),
        (lambda file: None, "there is no such file"),
        (lambda file: file.mkdir(), "is not a plain file"),
    ],
)
def test_wrong_latents_are_reported_by_the_line_that_names_them(
    farm, make: Callable[[Path], object], part: str
) -> None:
    make(farm.folder / "start.npy")
    prompts: list[object] = ["a fox", {"prompt": "a hen", "init_latents": "start.npy"}]
    done = farm.command("submit", farm.manifest(prompts, model="shapes-random"))
    check_reported_once(done, "cats.yaml:1:", "prompts[1].init_latents", "start.npy", part)
    check_nothing_written(farm)


def test_an_output_outside_the_root_is_refused_where_it_is_submitted(farm) -> None:
    done = farm.command("submit", farm.manifest(4), output_root=farm.folder / "allowed")
    check_reported_once(done, f"output {farm.output}", "lies outside IMAGEMILL_OUTPUT_ROOT")
    check_nothing_written(farm)


@pytest.mark.parametrize("command", [["submit", "cats.yaml"], ["status"]])
def test_with_neither_a_url_nor_a_run_it_says_what_to_start(farm, command: list[str]) -> None:
    farm.manifest(4)
    environment = farm.environment()
    del environment["IMAGEMILL_REDIS_URL"]
    done = subprocess.run(
        [BIN / "imagemill", *command],
        env=environment,
        cwd=farm.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    check_reported_once(
        done, "no Redis to connect to", "`imagemill run FILE`", "IMAGEMILL_REDIS_URL=redis://"
    )
    check_nothing_written(farm)


@pytest.mark.parametrize("command", ["imagemill", "imagemill-worker"])
def test_an_unknown_or_wrong_variable_is_reported(farm, command: str) -> None:
    arguments = [BIN / command, "status"] if command == "imagemill" else [BIN / command]
    for variable, value, part in (
        ("IMAGEMILL_LEASES", "30", "IMAGEMILL_LEASES: no such setting; there are IMAGEMILL_ALLOW_EVICTION"),
        ("IMAGEMILL_LEASE", "soon", "IMAGEMILL_LEASE = 'soon': "),
    ):
        done = subprocess.run(
            arguments, env=farm.environment() | {variable: value}, cwd=farm.folder, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        check_reported_once(done, part)


def test_a_worker_that_holds_another_revision_refuses_and_the_waiter_is_told_why(
    farm, wait_until: WaitUntil
) -> None:
    model = farm.folder / "model"
    (model / "unet").mkdir(parents=True)
    (model / "vae").mkdir()
    (model / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],'
        ' "vae": ["diffusers", "AutoencoderKL"]}'
    )
    (model / "unet" / "config.json").write_text('{"in_channels": 4}')
    (model / "vae" / "config.json").write_text('{"block_out_channels": [8, 8, 8]}')
    manifest = farm.manifest(4, model="./model")
    (submitted,) = json.loads(farm.command("submit", manifest, "--json").stdout)
    revision = farm.ledger.spec(submitted["job_id"]).revision
    (model / "unet" / "config.json").write_text('{"in_channels": 4, "sample_size": 8}')
    farm.start_worker()
    done = farm.command("watch", submitted["job_id"])
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert f"the job asks for revision {revision}, this worker holds sha256:" in done.stderr
    assert "`imagemill resume cats-1`" in done.stderr
    assert "Traceback" not in done.stderr + farm.log("w1")
    status = farm.status("cats-1")
    assert (status.left, status.failed, status.shards_ready) == (4, 0, 1)
    assert farm.celery_pid("w1") is not None


def test_a_spool_that_cannot_be_written_makes_the_worker_refuse_and_loses_nothing(
    farm, finished: Finish
) -> None:
    job_id = farm.submit(16)
    spool = farm.output / ".imagemill" / "spool"
    spool.rmdir()
    spool.write_text("in the way")
    farm.start_worker()
    done = farm.command("watch", job_id)
    assert done.returncode == 2
    assert str(spool) in done.stderr
    assert "Traceback" not in done.stderr + farm.log("w1")
    assert (farm.status(job_id).left, farm.status(job_id).failed) == (16, 0)
    spool.unlink()
    assert farm.command("resume", job_id).returncode == 0
    finished(job_id)
    farm.check_exact(job_id, 16)


def test_something_else_in_a_shards_place_is_reported_and_left_as_it_is(farm, finished: Finish) -> None:
    job_id = farm.submit(16)
    stranger = farm.output / "00001"
    stranger.mkdir()
    (stranger / "notes.txt").write_text("mine")
    farm.start_worker()
    done = farm.command("watch", job_id)
    assert done.returncode == 2
    assert f"{stranger} is in the way" in done.stderr
    assert (stranger / "notes.txt").read_text() == "mine"
    stranger.rename(farm.output / "notes")
    assert farm.command("resume", job_id).returncode == 0
    finished(job_id)
    farm.check_exact(job_id, 16)


def test_a_job_whose_report_cannot_be_written_is_finished_once_it_can(farm, finished: Finish) -> None:
    job_id = farm.submit(16)
    in_the_way = farm.output / "job.json"
    in_the_way.mkdir()
    farm.start_worker()
    done = farm.command("watch", job_id)
    assert done.returncode == 2
    assert str(in_the_way) in done.stderr
    assert f"`imagemill resume {job_id}`" in done.stderr
    again = farm.command("submit", farm.manifest(16, name="dogs"))
    check_reported_once(again, f"{in_the_way} cannot be read (not a plain file)", "make it a file")
    in_the_way.rmdir()
    assert farm.command("resume", job_id).returncode == 0
    finished(job_id)
    farm.check_exact(job_id, 16)


def test_an_output_that_breaks_while_it_is_submitted_is_reported_and_resumed(farm, finished: Finish) -> None:
    jobs = farm.output / ".imagemill" / "jobs"
    jobs.parent.mkdir(parents=True)
    jobs.symlink_to("/proc")
    manifest = farm.manifest(4)
    check_reported_once(
        # Below this root no link leads out of it.
        farm.command("submit", manifest, output_root="/"),
        f"output {farm.output}: cannot be written",
        "run the same command",
    )
    jobs.unlink()
    done = farm.command("submit", manifest)
    assert done.returncode == 0
    assert done.stdout.startswith("cats-1: 4 images to render")
    farm.start_worker()
    finished("cats-1")
    farm.check_exact("cats-1", 4)


def test_a_disk_that_fills_up_pauses_a_job_and_space_lets_it_go_on(
    farm, finished: Finish, wait_until: WaitUntil
) -> None:
    spare = 1 << 30
    farm.start_worker(instant_seconds=0.2, min_free_disk=shutil.disk_usage(farm.folder).free - spare)
    job_id = farm.submit(96, shard_size=48)
    wait_until(lambda: farm.status(job_id).done >= 8, "the job is under way")
    ballast = farm.folder / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 * spare)
    wait_until(lambda: "paused: " in farm.log("w1"), "the worker says that it is paused")
    wait_until(lambda: "GiB free" in farm.command("status", job_id).stdout, "status says it too")
    assert farm.status(job_id).done < 96
    ballast.unlink()
    finished(job_id)
    farm.check_exact(job_id, 96)


def test_too_little_free_disk_pauses_a_worker_and_fails_nothing(
    farm, finished: Finish, wait_until: WaitUntil
) -> None:
    farm.start_worker(min_free_disk="100TiB")
    job_id = farm.submit(64)
    wait_until(lambda: "IMAGEMILL_MIN_FREE_DISK" in farm.log("w1"), "the worker says that it is paused")
    paused = farm.status(job_id)
    assert (paused.done, paused.failed, paused.left) == (0, 0, 64)
    farm.workers["w1"].send_signal(signal.SIGTERM)
    # Not by force, which is 1 and comes after two minutes.
    assert farm.workers["w1"].wait(timeout=LONGEST) == 0
    assert farm.status(job_id).shards_leased == 0
    assert "Traceback" not in farm.log("w1")
    farm.start_worker("w2")
    finished(job_id)
    farm.check_exact(job_id, 64)


def test_a_job_that_is_cancelled_while_its_disk_is_full_lets_go_of_the_worker(
    farm, finished: Finish, wait_until: WaitUntil
) -> None:
    farm.start_worker(min_free_disk="100TiB")
    job_id = farm.submit(64)
    wait_until(lambda: farm.status(job_id).shards_leased == 2, "the worker has as many shards as it can")
    wait_until(lambda: "IMAGEMILL_MIN_FREE_DISK" in farm.log("w1"), "the worker says that it is paused")
    assert farm.command("cancel", job_id).returncode == 0
    wait_until(lambda: farm.log("w1").count("cancelled: 0 rendered") == 2, "the worker lets go of both")
    wait_until(lambda: farm.status(job_id).state != "sealed", "nothing is left to render")
    farm.workers["w1"].terminate()
    assert farm.workers["w1"].wait(timeout=LONGEST) == 0
    farm.start_worker("w2")
    status = finished(job_id)
    assert (status.outcome, status.done, status.failed) == ("cancelled", 0, 0)
    assert "Traceback" not in farm.log("w1")
