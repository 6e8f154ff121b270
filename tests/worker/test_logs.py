"""Log lines say which worker, job, shard and image they are about, and show no password."""

from __future__ import annotations

import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Literal

import pytest
from celery.exceptions import SecurityWarning
from celery.platforms import ROOT_DISCOURAGED

from worker.logs import bound, configure

log = logging.getLogger("worker.test")


@pytest.fixture(autouse=True)
def _the_root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_plain_line_has_time_level_worker_context_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure("plain", "INFO", "gpu0@host")
    with bound(job="sunsets-1", shard=12), bound(image_id="0123456789abcdef"):
        log.info("stored %d bytes", 7)
    log.debug("not shown")
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d INFO gpu0@host job=sunsets-1 shard=12 image=0123456789abcdef stored 7 bytes\n",
        capsys.readouterr().err,
    )


def test_a_json_line_has_one_key_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "INFO", "gpu0@host")
    with bound(job="sunsets-1", shard=0):
        log.info("two\nlines “quoted”")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    values = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", values.pop("time"))
    assert values == {
        "level": "INFO",
        "logger": "worker.test",
        "message": "two\nlines “quoted”",
        "worker": "gpu0@host",
        "job": "sunsets-1",
        "shard": 0,
    }


def test_context_ends_with_its_block_and_belongs_to_its_thread(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "INFO", "w")
    with bound(job="a"):
        with bound(job="b"):
            log.info("inner")
            thread = threading.Thread(target=log.info, args=("thread",))
            thread.start()
            thread.join()
        log.info("outer")
    log.info("none")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["message"], line.get("job")) for line in lines] == [
        ("inner", "b"),
        ("thread", None),
        ("outer", "a"),
        ("none", None),
    ]


@pytest.mark.parametrize("form", ["plain", "json"])
def test_no_password_of_a_redis_url_is_shown_not_even_in_a_traceback(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(form, "INFO", "w")  # type: ignore[arg-type]
    log.warning("Connected to %s", "redis://:hunter2@host:6379/0")
    try:
        raise ValueError("rediss://user:hunter2@host:6379/0 is away")
    except ValueError:
        log.exception("failed")
    shown = capsys.readouterr().err
    assert "hunter2" not in shown
    assert "redis://***@host:6379/0" in shown
    assert "rediss://***@host:6379/0 is away" in shown
    assert "Traceback" in shown
    if form == "json":
        assert "ValueError" in json.loads(shown.splitlines()[1])["exc"]


def test_configuring_twice_doubles_no_line_and_celerys_loggers_pass_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("plain", "INFO", "w")
    configure("plain", "WARNING", "w")
    logging.getLogger("celery.worker.consumer").warning("once")
    logging.getLogger("celery.task").info("below the level")
    logging.getLogger("httpx").info("noise")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_the_hubs_requests_are_not_logged(client: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("plain", "INFO", "w")
    logging.getLogger(client).info('HTTP Request: GET https://huggingface.co "HTTP/1.1 200 OK"')
    log.info("message")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_worker_without_a_name_leaves_no_gap(capsys: pytest.CaptureFixture[str]) -> None:
    configure("plain", "INFO")
    log.info("message")
    assert capsys.readouterr().err.endswith(" INFO message\n")
    configure("json", "INFO")
    log.info("message")
    assert "worker" not in json.loads(capsys.readouterr().err)


def test_celerys_lines_on_the_user_root_are_left_out_and_other_warnings_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # however Python was started
        configure("plain", "INFO", "w")
        warnings.warn(SecurityWarning(ROOT_DISCOURAGED.format(uid=0, euid=0, gid=0, egid=0)), stacklevel=1)
        warnings.warn(SecurityWarning("another"), stacklevel=1)
    shown = capsys.readouterr().err
    assert "superuser" not in shown
    assert "another" in shown


HOSTILE = "a\n12:00:00 CRITICAL forged \x1b[31m\x9b2J\x7f\r\u202e"


@pytest.mark.parametrize("format", ["plain", "json"])
def test_nothing_that_is_logged_makes_a_line_or_moves_a_terminal(
    capsys: pytest.CaptureFixture[str], format: Literal["plain", "json"]
) -> None:
    configure(format, "INFO", HOSTILE)
    with bound(job=HOSTILE, image_id=HOSTILE):
        log.info("%s", HOSTILE)
        logging.getLogger("celery.worker.strategy").info("Task %(id)s received", {"id": HOSTILE})
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 3 and all(line.isprintable() for line in lines), lines
    if format == "json":
        assert json.loads(lines[0]) | {"time": ""} == {
            "time": "", "level": "INFO", "logger": "worker.test", "message": HOSTILE, "worker": HOSTILE,
            "job": HOSTILE, "image_id": HOSTILE,
        }  # fmt: skip


@pytest.mark.parametrize("format", ["plain", "json"])
def test_no_line_of_a_traceback_looks_like_one_of_the_log(
    capsys: pytest.CaptureFixture[str], format: Literal["plain", "json"]
) -> None:
    configure(format, "INFO")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("it failed")
    lines = capsys.readouterr().err.splitlines()
    assert all(line.isprintable() for line in lines), lines
    assert not [line for line in lines[1:] if not line.startswith("  ")]
