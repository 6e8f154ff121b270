"""`imagemill serve`: where it serves, to whom, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.farm import Farm
from tests.visitor import TOKEN
from tests.waiting import LONGEST
from tests.warm_python import BIN, warm_imagemill

Serve = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def serve(farm: Farm) -> Iterator[Serve]:
    """Starts `imagemill serve` at a free port; returns the process and its address."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str | Path, **settings: object) -> tuple[subprocess.Popen[str], str]:
        process = warm_imagemill().popen(
            [BIN / "imagemill", "serve", "--port", "0", *options], env=farm.environment(**settings),
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=farm.folder,
        )  # fmt: skip
        started.append(process)
        line = process.stdout.readline()
        found = re.fullmatch(
            r"serving at (http://127\.0\.0\.1:\d+)/(?: and all .*)? \(Ctrl-C ends it\)\n", line
        )
        assert found is not None, (line, process.stderr.read() if process.poll() is not None else "")
        return process, found[1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def get(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=LONGEST) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_shows_jobs_and_named_outputs_until_it_is_stopped_quietly(
    stop: signal.Signals, status: int, serve: Serve, farm: Farm
) -> None:
    job_id = farm.submit(4)
    (farm.folder / "older").mkdir()
    process, url = serve("older")
    page = get(f"{url}/")
    assert f">{job_id}</a>" in page
    assert f">{farm.folder / 'older'}</a>" in page
    process.send_signal(stop)
    out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, out, err) == (status, "", "")


def test_without_any_redis_it_shows_the_outputs_that_were_named(serve: Serve, farm: Farm) -> None:
    environment = farm.environment()
    del environment["IMAGEMILL_REDIS_URL"]
    farm.environment = lambda **_: environment  # type: ignore[method-assign]
    (farm.folder / "older").mkdir()
    _, url = serve("older")
    page = get(f"{url}/")
    assert f">{farm.folder / 'older'}</a>" in page
    assert "No <code>imagemill run</code> is alive" in page


def test_a_token_of_a_file_lets_in_who_gives_it_from_anywhere(serve: Serve, farm: Farm) -> None:
    file = farm.folder / "token"
    file.write_text(f"{TOKEN}\n", "utf-8")
    _, url = serve("--token-file", file, "--host", "0.0.0.0")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(f"{url}/")
    assert "There is no job yet" in get(f"{url}/", Authorization=f"Bearer {TOKEN}", Host="farm.example")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], r"error: --host 0\.0\.0\.0: others could look at everything: .*--token-file"),
        (["--token", "short"], r"error: --token: must have at least 16 characters"),
        (["--token", TOKEN, "--token-file", "x"], "error: --token and --token-file exclude each other"),
        (
            ["--token-file", "absent"],
            r"error: --token-file absent: cannot be read \(No such file or directory\)",
        ),
        (["--host", "192.0.2.1", "--token", TOKEN], r"error: 192\.0\.2\.1, port \d+: cannot be served"),
        (["--host", "..a", "--token", TOKEN], r"error: --host \.\.a: is no name that a machine can have"),
        (["--host", "a" * 70, "--token", TOKEN], r"error: --host a{70}: is no name that a machine can have"),
        (
            ["--forwarded-allow-ips", "10.0.0.7,10.0.0.300"],
            r"error: --forwarded-allow-ips 10\.0\.0\.300: is no address and no network",
        ),
        (["no-such-folder"], "Directory 'no-such-folder' does not exist"),
    ],
)
def test_what_cannot_be_served_is_one_message(options: list[str], said: str, farm: Farm) -> None:
    # The port is in use: a check that is lost costs another message, and no server that runs for ever.
    with socket.create_server(("0.0.0.0", 0)) as taken:
        done = farm.command("serve", "--port", str(taken.getsockname()[1]), *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(said, done.stderr, re.DOTALL), done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_one_message(farm: Farm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = farm.command("serve", "--port", str(port))
    said = f"error: port {port} of 127.0.0.1 is in use: name another, or --port 0 for any that is free\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_wrong_address_of_redis_is_refused_at_once(farm: Farm) -> None:
    done = farm.command("serve", redis_url="redis://redis.example/0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: IMAGEMILL_REDIS_URL = redis://redis.example/0: beyond this machine")


def test_it_starts_fast(farm: Farm) -> None:
    """`imagemill --help` and other commands do not import what the pages need."""
    code = (
        "import sys, producer.cli, producer.run; "
        "print(sorted({'starlette', 'uvicorn', 'jinja2', 'anyio'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [BIN / "python", "-c", code], env=os.environ, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "[]\n"
