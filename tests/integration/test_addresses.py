"""Jobs by every kind of address, on real servers, and one line where a server cannot hold a ledger."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from jobs.lifeline import start_tied_program
from producer.embedded_redis import find_binary
from tests.farm import Farm
from tests.ports import free_port
from tests.waiting import WaitUntil


@dataclass
class Server:
    """A server with a configuration of the test's own, started at once."""

    folder: Path
    process: subprocess.Popen[bytes]
    url: str

    @property
    def pid(self) -> int:
        return psutil.Process(self.process.pid).children()[0].pid


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path, wait_until: WaitUntil) -> Iterator[Start]:
    """Starts servers that end with the test; {port} and {folder} in URLs and lines are each server's own."""
    started: list[Server] = []

    def begin(url: str, *lines: str, arguments: tuple[str, ...] = ()) -> Server:
        folder, port = tmp_path / f"server{len(started)}", free_port()
        folder.mkdir(mode=0o700)
        text = "\n".join(["logfile log", "dir ./", *lines, ""]).format(port=port, folder=folder)
        (folder / "server.conf").write_text(text)
        process = start_tied_program([str(find_binary()), "server.conf", *arguments], cwd=folder)
        started.append(Server(folder, process, url.format(port=port, folder=folder)))
        log = folder / "log"
        wait_until(
            lambda: log.exists() and ("eady to accept" in log.read_text() or "+monitor" in log.read_text()),
            "the server is ready",
        )
        return started[-1]

    yield begin
    for one in started:
        one.process.terminate()
        one.process.wait()


ADDRESSES = {
    "a socket": ("unix://:pw@{folder}/my%20redis.sock?db=3", 'unixsocket "{folder}/my redis.sock"', "port 0"),
    "IPv6": ("redis://:pw@[::1]:{port}/2?health_check_interval=30", "bind ::1", "port {port}"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_job_goes_through(tmp_path: Path, start: Start, kind: str) -> None:
    url, *lines = ADDRESSES[kind]
    farm = Farm(tmp_path, start(url, "requirepass pw", 'save ""', *lines))
    try:
        farm.start_worker()
        done = farm.command("submit", farm.manifest(16), "--wait")
        assert done.returncode == 0, done.stderr + farm.log("w1")
        farm.check_exact("cats-1", 16)
    finally:
        farm.stop()


def refusals(farm: Farm, url: str) -> list[str]:
    """What `status`, `submit` and a worker say of a URL; each ends with 2."""
    said = []
    for arguments in (["status"], ["submit", farm.manifest(4)]):
        done = farm.command(*arguments, redis_url=url)
        assert (done.returncode, done.stdout) == (2, "")
        said.append(done.stderr)
    worker = farm.start_worker(redis_url=url)
    assert worker.wait() == 2
    return [*said, farm.log("w1")]


@pytest.mark.parametrize(
    ("url", "trouble"),
    [
        ("redis://127.0.0.1:{port}/0?protocol=3", "?protocol= is no option of redis://"),
        ("redis://127.0.0.1:{port}/abc", "'/abc' in the place of the database"),
    ],
)
def test_a_url_that_not_all_parts_can_use_is_refused_before_anything_is_stored(
    farm: Farm, url: str, trouble: str
) -> None:
    port = farm.server.url.rpartition(":")[2].partition("/")[0]
    for said in refusals(farm, url.format(port=port)):
        assert trouble in said
        assert len(said.splitlines()) == 1, said
    assert farm.client.keys("*") == []


def test_a_cluster_is_refused_in_a_line_and_nothing_is_stored_there(tmp_path: Path, start: Start) -> None:
    # Its other port would be 10,000 more, which not every port leaves room for.
    lines = ("cluster-enabled yes", f"cluster-port {free_port()}", "bind 127.0.0.1", "port {port}", 'save ""')
    farm = Farm(tmp_path, start("redis://127.0.0.1:{port}/0", *lines))
    for said in refusals(farm, farm.server.url):
        assert "a node of a Redis Cluster answers" in said
        assert "without cluster-enabled" in said
        assert "Traceback" not in said
        assert len(said.splitlines()) == 1, said


def test_a_sentinel_in_the_place_of_a_redis_is_named(tmp_path: Path, start: Start) -> None:
    lines = ("sentinel monitor m 127.0.0.1 1 1", "bind 127.0.0.1", "port {port}")
    farm = Farm(tmp_path, start("redis://127.0.0.1:{port}/0", *lines, arguments=("--sentinel",)))
    for said in refusals(farm, farm.server.url):
        assert "a Sentinel answers in the place of a Redis: write sentinel://" in said
        assert len(said.splitlines()) == 1, said
