"""A push that is killed, or stopped, anywhere: the same command goes on, and each file goes up once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.output.output import Output
from tests.hub_server import HubServer
from tests.producer.push.hasty import REPOSITORY

Start = Callable[..., subprocess.Popen[str]]
Point = tuple[str, bool]
"""What a request contains, and whether the hub still does what it asks for."""


def _killed_at(hub: HubServer, process: subprocess.Popen[str], point: Point) -> None:
    """Kills the process when such a request arrives."""
    request, served = point

    def act(arrived: str) -> None:
        if request in arrived:
            process.kill()
            process.wait()
            if not served:
                raise ConnectionError("killed")

    hub.before = act
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    hub.before = lambda request: None


@pytest.mark.parametrize(
    ("layout", "points"),
    [
        (
            "webdataset",
            [
                ("repos/create", True),
                ("PUT /lfs/", False),
                ("/verify", True),
                ("/commit/", False),
                ("/commit/", True),
            ],
        ),
        ("files", [("PUT /lfs/", False), ("/commit/", False)]),
    ],
)
def test_a_push_that_is_killed_anywhere_sends_each_file_once(
    hub: HubServer,
    rendered: Callable[..., Output],
    start: Start,
    tmp_path: Path,
    layout: str,
    points: list[Point],
) -> None:
    output = rendered(12, layout=layout)
    for point in points:
        _killed_at(hub, start(output.path, REPOSITORY), point)

    process = start(output.path, REPOSITORY)
    said, _ = process.communicate()

    assert process.returncode == 0 and "org/foxes (private): pushed" in said
    repo = hub.repos[REPOSITORY]
    assert set(hub.uploads.values()) == {1}
    assert Counter(path for commit in repo.commits for path in commit) == Counter(repo.files.keys())
    assert len(repo.commits) == 1


def test_what_a_killed_push_left_in_the_temporary_folder_goes_with_a_later_one(
    hub: HubServer, rendered: Callable[..., Output], start: Start, tmp_path: Path
) -> None:
    left = tmp_path / "tmp" / "imagemill-push-abcdefgh"
    left.mkdir(parents=True)
    (left / "00000.parquet").write_bytes(b"half")
    os.utime(left, (0, 0))

    start(rendered(4).path, REPOSITORY).communicate()

    assert not list((tmp_path / "tmp").iterdir())


def test_ctrl_c_says_what_was_committed_and_that_the_same_command_goes_on(
    hub: HubServer, rendered: Callable[..., Output], start: Start
) -> None:
    output = rendered(4)
    process = start(output.path, REPOSITORY)
    hub.before = lambda request: process.send_signal(signal.SIGINT) if "PUT /lfs/" in request else None
    _, said = process.communicate()
    assert process.returncode == 130
    assert "org/foxes: stopped; nothing was committed; the same command goes on where this one ended" in said
