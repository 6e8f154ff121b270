"""The supervisor keeps its worker processes alive, and takes them down without leaving one behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from jobs.lifeline import start_tied_program
from jobs.settings import load_settings
from producer.embedded_redis import find_binary
from tests.breakable_redis import BreakableRedis
from tests.processes import runs
from tests.waiting import LONGEST, WaitUntil
from tests.worker.host.host import A, B, Host
from worker.host import exit_status, gpus
from worker.host.imagemill_worker import celery_argv
from worker.host.stop import Stop
from worker.host.supervisor import Child, Pace, supervise
from worker.lease.beat import Beat


def test_each_gpu_gets_one_process_with_its_settings_in_the_environment(
    host: Host, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("imagemill_rows", "3")
    host.start(
        url,
        models=["shapes", "org/model"],
        batch_size=8,
        mixed_hardware=True,
        concurrency=4,
        log_format="json",
    )
    starts = sorted(host.starts(2), key=lambda start: str(start["node"]))
    assert [(s["node"], s["slots"], s["level"]) for s in starts] == [
        ("gpu0@host", "4", "INFO"),
        ("gpu1@host", "4", "INFO"),
    ]
    assert [s["env"]["CUDA_VISIBLE_DEVICES"] for s in starts] == [A, B]
    for start in starts:
        assert start["env"]["IMAGEMILL_REDIS_URL"] == url
        assert start["env"]["IMAGEMILL_MODELS"] == "shapes,org/model"
        assert start["env"]["IMAGEMILL_BATCH_SIZE"] == "8"
        assert start["env"]["IMAGEMILL_MIXED_HARDWARE"] == "1"
        assert start["env"]["IMAGEMILL_CONCURRENCY"] == "4"
        assert start["env"]["IMAGEMILL_LOG_FORMAT"] == "json"
        assert "LIFELINE_FD" not in start["env"], "a child's own children must not take it for theirs"
    password = urlsplit(url).password
    assert password is not None
    for process in host.family:
        assert password not in " ".join(process.cmdline())
    host.wait_for_log("gpu1@host started")
    lines = [json.loads(line) for line in host.log.splitlines()]
    assert {line["worker"] for line in lines} == {"supervisor@host"}
    assert password not in host.log


def test_a_process_that_is_killed_is_started_again_and_the_other_left_alone(host: Host, url: str) -> None:
    host.start(url)
    first = host.starts(2)
    unsaid = {"IMAGEMILL_BATCH_SIZE", "IMAGEMILL_MIXED_HARDWARE"}
    assert not any(unsaid & set(start["env"]) for start in first), "a worker would not measure"
    victim = next(start for start in first if start["node"] == "gpu1@host")
    os.kill(victim["pid"], signal.SIGKILL)
    starts = host.starts(3)
    assert starts[2]["node"] == "gpu1@host"
    assert starts[2]["env"] == victim["env"]
    host.wait_for_log("gpu1@host died: SIGKILL; starting it again in 0.05 s")
    assert "gpu0@host died" not in host.log


def test_pauses_between_restarts_double_up_to_the_longest(host: Host, url: str) -> None:
    host.start(url, {"cpu0": "die"}, gpus="none")
    host.starts(5)
    host.wait_for_log("in 0.2 s")
    said = [line.split(" in ")[1] for line in host.log.splitlines() if "exit status 1; starting" in line]
    assert said[:4] == ["0.05 s", "0.1 s", "0.2 s", "0.2 s"]


def test_a_process_that_was_healthy_starts_again_with_the_first_pause(host: Host, url: str) -> None:
    host.start(url, {"cpu0": "die"}, {"healthy_after": 0.0}, gpus="none")
    host.starts(4)
    said = [line.split(" in ")[1] for line in host.log.splitlines() if "starting it again" in line]
    assert set(said) == {"0.05 s"}


def test_five_refusals_in_a_slot_end_the_supervisor_with_their_status(host: Host, url: str) -> None:
    host.start(url, {"cpu0": "refuse"}, gpus="none")
    assert host.wait() == 2
    assert len(host.starts(5)) == 5
    assert "cpu0@host died: exit status 2, 5 times in a row: given up" in host.log


def test_a_process_that_refuses_is_given_up_alone_while_others_work(host: Host, url: str) -> None:
    host.start(url, {"gpu0": "refuse"})
    starts = host.starts(6)
    host.wait_for_log("gpu0@host died: exit status 2, 5 times in a row: given up")
    worker = next(start for start in starts if start["node"] == "gpu1@host")
    assert runs(psutil.Process(worker["pid"]))
    freed = gpus.claim("0", "other", load_settings())
    freed[0].give_up()
    host.signal(signal.SIGTERM)
    assert host.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_in_good_order(host: Host, url: str, number: int) -> None:
    host.start(url)
    host.starts(2)
    host.signal(number)
    assert host.wait() == 0
    host.wait_for_the_end_of_all()
    assert host.log.count("ended: exit status 0") == 2
    assert len(host.starts(2)) == 2, "none was started again"


def test_a_second_signal_kills_what_does_not_end(host: Host, url: str) -> None:
    host.start(url, {"gpu0": "stubborn"})
    host.starts(2)
    host.signal(signal.SIGTERM)
    host.wait_for_log("gpu1@host ended: exit status 0")
    assert host.process is not None
    assert host.process.poll() is None, "it waits for the other"
    host.signal(signal.SIGTERM)
    assert host.wait() == 1
    host.wait_for_log("gpu0@host ended: SIGKILL")
    host.wait_for_the_end_of_all()


def test_what_does_not_end_within_the_grace_is_killed(host: Host, url: str) -> None:
    host.start(url, {"cpu0": "stubborn"}, {"grace": 0.4}, gpus="none")
    host.starts(1)
    host.signal(signal.SIGTERM)
    assert host.wait() == 1
    host.wait_for_the_end_of_all()
    assert "waiting up to 0.4 s for worker processes (cpu0@host)" in host.log


class _Stuck(Child):
    """A child that nothing ends, as while a driver holds it in the kernel."""

    def kill(self) -> None:
        pass

    def end(self) -> None:
        super().kill()


def test_a_process_that_even_a_kill_does_not_end_keeps_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = os.open(os.devnull, os.O_RDONLY)
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; while :; do sleep 0.1; done"
    beat = Beat(load_settings(), "cpu0@host")
    child = _Stuck(gpus.Device("cpu0", None, lock), "cpu0@host", ["/bin/sh", "-c", script], beat)
    stop = Stop()

    def ask() -> None:
        while not ready.exists():
            time.sleep(0.05)
        stop.leave(exit_status.ORDERLY, "asked")

    when_it_runs = threading.Thread(target=ask)
    when_it_runs.start()
    try:
        pace = Pace(grace=0.2, after_kill=0.2)
        assert supervise([child], os.environ, stop, pace) == exit_status.KILLED
        assert "cpu0@host did not end within 0.2 s after SIGKILL" in caplog.text
    finally:
        when_it_runs.join()
        child.end()
        os.close(lock)


def test_no_process_is_left_when_the_supervisor_is_killed_with_9(host: Host, url: str) -> None:
    host.start(url)
    host.starts(2)
    assert len(host.family) == 2
    host.signal(signal.SIGKILL)
    host.wait_for_the_end_of_all()


def test_no_process_is_left_when_the_supervisors_own_parent_is_killed_with_9(host: Host, url: str) -> None:
    host.start(url, {"gpu1": "stubborn"}, tied=True)
    host.starts(2)
    assert len(host.family) == 3
    host.signal(signal.SIGKILL)
    host.wait_for_the_end_of_all()
    assert "waiting up to 0.5 s" in host.log


def test_the_gpus_of_a_host_are_claimed_once_and_a_second_supervisor_says_so(host: Host, url: str) -> None:
    devices = gpus.claim("0,1", "other", load_settings())
    try:
        host.start(url, pace={"orphan_grace": 0.0})
        assert host.wait() != 0
        assert "GpusClaimed: --gpus: every GPU of this host (0, 1) is claimed by another worker" in host.log
    finally:
        for device in devices:
            device.give_up()


def test_a_wrong_password_is_an_error_that_does_not_show_it(host: Host, url: str) -> None:
    password = urlsplit(url).password
    assert password is not None
    host.start(url.replace(password, "hunter2"), gpus="none")
    assert host.wait() != 0
    assert "LedgerError: redis://***@127.0.0.1:" in host.log
    assert "Redis refuses the connection" in host.log
    assert "hunter2" not in host.log
    assert not host.starts_file.exists()


def test_a_url_that_cannot_be_read_is_an_error(host: Host) -> None:
    host.start("redis://127.0.0.1:port/0", gpus="none")
    assert host.wait() != 0
    assert "SettingsError: IMAGEMILL_REDIS_URL = redis://127.0.0.1:port/0: has a port that is no" in host.log


def test_a_redis_that_is_late_is_waited_for(host: Host, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host.start(f"redis://127.0.0.1:{port}/0", gpus="none")
    host.wait_for_log("Redis is away, next try in 1 s")
    assert not host.starts_file.exists()
    late = start_tied_program(
        [str(find_binary()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        assert host.starts(1)[0]["node"] == "cpu0@host"
        host.signal(signal.SIGTERM)
        assert host.wait() == 0
    finally:
        late.terminate()
        late.wait(LONGEST)


def test_a_signal_ends_the_wait_for_redis(host: Host) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        host.start(f"redis://127.0.0.1:{nobody.getsockname()[1]}/0", gpus="none")
        host.wait_for_log("Redis is away")
        host.signal(signal.SIGTERM)
        assert host.wait() == 0
    assert not host.starts_file.exists()
    assert "stopping: no worker process runs" in host.log


def test_a_model_with_a_comma_is_refused(host: Host, url: str) -> None:
    host.start(url, models=["a,b"], gpus="none")
    assert host.wait() != 0
    assert "SettingsError: models = ['a,b']" in host.log
    assert "may not have a comma in its name" in host.log


def test_the_command_line_is_celerys_with_a_pool_of_threads_and_no_url() -> None:
    argv = celery_argv("gpu0@host", 3, "INFO")
    assert argv[:3] == [sys.executable, "-m", "celery"]
    text = " ".join(argv)
    assert "-A worker.celery_app worker -P threads -c 3 -n gpu0@host -Q imagemill" in text
    assert "--without-gossip --without-mingle --loglevel INFO" in text


def beats(folder: Path) -> Path:
    found = folder / "beats"
    found.mkdir()
    return found


def test_what_was_killed_and_what_has_ended_leave_no_file_for_health_checks(
    host: Host, url: str, tmp_path: Path
) -> None:
    files = beats(tmp_path)
    host.start(url, runtime_dir=str(tmp_path))
    starts = {start["node"]: start["pid"] for start in host.starts(2)}
    for node in starts:
        (files / node).touch()  # as the processes do that these stand for
    os.kill(starts["gpu1@host"], signal.SIGKILL)
    host.wait_until(lambda: not (files / "gpu1@host").exists(), "no beat of what was killed")
    assert (files / "gpu0@host").exists()
    host.starts(3)
    (files / "gpu1@host").touch()
    host.signal(signal.SIGTERM)
    assert host.wait() == 0
    assert list(files.iterdir()) == []


def test_while_redis_is_away_at_the_start_the_host_lives_and_what_an_earlier_life_left_is_gone(
    host: Host, tmp_path: Path, wait_until: WaitUntil
) -> None:
    files = beats(tmp_path)
    for name, seconds in (("gpu0@host", 300), ("gpu1@host", 10), ("gpu7@host", 300), ("gpu7@another", 300)):
        (files / name).touch()
        os.utime(files / name, (time.time() - seconds,) * 2)
    with BreakableRedis(tmp_path / "redis") as redis:
        redis.kill()
        host.start(redis.url, runtime_dir=str(tmp_path))
        wait_until((files / "waiting@host").exists, "it waits for Redis")
        assert {file.name for file in files.iterdir()} == {"waiting@host", "gpu7@another"}
        redis.start()
        host.starts(2)
        assert {file.name for file in files.iterdir()} == {"gpu7@another"}, "none of the stand-ins beats"
