"""One output in a bucket and two Redis servers, each with a real worker: each picture once, or a refusal."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.output.output import Output
from jobs.output.writer import LEASES, WRITER
from producer.embedded_redis import EmbeddedRedis
from tests.farm import Farm, Server
from tests.object_store.breakable_store import BreakableStore
from tests.trouble import TROUBLED
from tests.waiting import LONGEST, WaitUntil
from tests.warm_python import BIN

LEASE = 2.0


class Side(Farm):
    """A Redis and a worker on a machine of its own; the bucket is all that it shares."""

    def __init__(self, folder: Path, server: Server, store: BreakableStore, root: str) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, server)
        self.store, self.root = store, root

    def environment(self, **settings: object) -> dict[str, str]:
        own = {"output_root": self.root, "lease": LEASE, "concurrency": 1} | settings
        there = self.store.environment() | {"XDG_CACHE_HOME": str(self.folder / "cache")}
        return {**super().environment(**own), **there, **TROUBLED}

    def run(self, file: Path) -> subprocess.Popen[bytes]:
        """A `run` with a Redis of its own, in the background."""
        own = self.environment(instant_seconds=0.2, batch_size=16)
        del own["IMAGEMILL_REDIS_URL"]
        # Not a copy of a warm process: this one is killed.
        return subprocess.Popen(
            [BIN / "imagemill", "run", file, "--gpus", "none"],
            env=own,
            cwd=self.folder,
            stderr=subprocess.PIPE,
        )

    def foxes(self, output: str, prompts: int = 32) -> Path:
        """The manifest of both sides."""
        return self.manifest(prompts, name="foxes", output=output, layout="webdataset", shard_size=4)


@pytest.fixture
def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Side]]:
    with ExitStack() as stack:
        store = stack.enter_context(BreakableStore())
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        root = f"s3://two-{secrets.token_hex(8)}"
        store.make_bucket(root.removeprefix("s3://"))
        found = []
        for name in ("one", "two"):
            server = stack.enter_context(EmbeddedRedis(folder=tmp_path / f"redis-{name}"))
            found.append(Side(tmp_path / name, server, store, root))
            stack.callback(found[-1].stop)
            found[-1].start_worker(batch_size=16, instant_seconds=0.1)
        yield found


def held(output: Output) -> list[str]:
    """The image_ids of all records."""
    return [record["image_id"] for shard in output.shards() for record in output.records(shard)]


def test_the_second_ledger_is_refused_while_the_first_renders_and_goes_on_when_it_ended(
    sides: list[Side], wait_until: WaitUntil
) -> None:
    one, two = sides
    output = Output.at(f"{one.root}/sets/foxes")
    assert one.command("submit", one.foxes(output.label, 200)).returncode == 0
    wait_until(lambda: one.status("foxes-1").done > 4, "the first is under way")
    done = two.command("submit", two.foxes(output.label, 200))
    assert (done.returncode, two.ledger.job_ids()) == (2, []), done.stderr
    assert f"output {output.label}: foxes-1 of another Redis (on " in done.stderr
    assert "is writing there: give both one Redis (IMAGEMILL_REDIS_URL)" in done.stderr
    assert one.finished("foxes-1").done == 200
    assert two.command("submit", two.foxes(output.label, 208), "--wait").returncode == 0
    assert (len(held(output)), len({*held(output)})) == (208, 208)
    assert output.read_json(WRITER)["free"] is True
    assert two.status("foxes-2").total == 8


def test_a_worker_that_slept_while_another_ledger_took_over_commits_nothing(
    sides: list[Side], wait_until: WaitUntil
) -> None:
    one, two = sides
    output = Output.at(f"{one.root}/sets/foxes")
    assert one.command("submit", one.foxes(output.label)).returncode == 0
    wait_until(lambda: one.status("foxes-1").done > 4, "the first is under way")
    pid = one.celery_pid("w1")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        done = two.command("submit", two.foxes(output.label), "--wait")
        assert (done.returncode, "or was cut off: waiting for at most 7 s" in done.stderr) == (0, True)
        before = [*output.store.files_below("")]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: one.status("foxes-1").refusals, "the first refuses its job")
    [reason] = one.status("foxes-1").refusals.values()
    assert "of another Redis has had it since foxes-1 was begun" in reason
    assert (len(held(output)), len({*held(output)})) == (32, 32)
    assert sorted(output.store.files_below("")) == sorted(before)
    # The way out that the refusal names.
    assert one.command("cancel", "foxes-1").returncode == 0
    one.finished("foxes-1")
    assert one.command("submit", one.foxes(output.label), "--wait").returncode == 0
    assert (len(held(output)), LEASES) == (32, 3)


def test_a_run_takes_its_output_again_at_once_after_a_kill_and_lets_it_go_when_it_is_stopped(
    sides: list[Side], wait_until: WaitUntil
) -> None:
    one, two = sides
    output = Output.at(f"{one.root}/sets/foxes")
    for end in (signal.SIGKILL, signal.SIGINT):
        before, process = len(output.shards()), one.run(one.foxes(output.label, 64))
        wait_until(lambda before=before: len(output.shards()) > before, "a shard is there")
        process.send_signal(end)
        _, said = process.communicate(timeout=2 * LONGEST)
        assert b"another Redis" not in said
    found = output.read_json(WRITER)
    assert (found["free"], found["host"], found["lock"]) == (True, "", "")
    assert two.command("submit", two.foxes(output.label, 64), "--wait").returncode == 0
    assert (len(held(output)), len({*held(output)})) == (64, 64)
