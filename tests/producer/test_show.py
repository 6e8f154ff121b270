"""What people and scripts read of a job."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from jobs.errors import JobError
from jobs.ledger.job import JobStatus
from producer import cli, show

MakeStatus = Callable[..., JobStatus]
WORKERS = {"gpu0@a": {"slots": "2"}, "gpu1@b": {"slots": "2"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "open"}, "being submitted"),
        ({"state": "open", "paused": True}, "paused"),
        ({"started": 0.0}, "waiting"),
        ({}, "running"),
        ({"paused": True}, "paused"),
        ({"ending": "cancelled"}, "cancelled, ending"),
        ({"state": "finishing"}, "finishing"),
        ({"state": "finished", "outcome": "complete"}, "finished"),
        ({"state": "finished", "outcome": "failures"}, "finished, with failures"),
        ({"state": "finished", "outcome": "cancelled", "ending": "cancelled"}, "cancelled"),
        ({"state": "finished", "outcome": "stopped", "ending": "stopped"}, "stopped"),
    ],
)
def test_where_a_job_stands_in_a_word_or_two(
    changes: dict[str, Any], words: str, job_status: MakeStatus
) -> None:
    assert show.state(job_status(**changes)) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0s"),
        (8.4, "8s"),
        (59.6, "1m 00s"),
        (200, "3m 20s"),
        (3599.7, "1h 00m"),
        (3720, "1h 02m"),
    ],
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("images_per_second", "text"),
    [(0.0, "–"), (214.84, "214.8"), (2.0, "2.0"), (0.14, "0.1"), (0.0333, "0.033"), (0.0004, "0.0004")],
)
def test_a_rate_has_digits_that_say_something(
    images_per_second: float, text: str, job_status: MakeStatus
) -> None:
    assert show.rate(job_status(images_per_second=images_per_second)) == text


def test_a_job_that_is_paused_or_waits_or_ends_early_has_no_time_left(job_status: MakeStatus) -> None:
    waits = {"gpu0@a": "no space left at /data"}
    assert job_status(notices={}).eta_seconds == 30.0
    assert job_status(workers=["gpu0@a", "gpu1@a"], notices=waits).eta_seconds == 30.0
    assert job_status(notices=waits).eta_seconds is None
    assert job_status(notices={}, paused=True).eta_seconds is None
    assert job_status(notices={}, ending="cancelled").eta_seconds is None


def test_one_line_says_job_state_counts_rate_time_left_and_what_is_waited_for(job_status: MakeStatus) -> None:
    assert show.progress_line(job_status()) == (
        "cats-1: running, 38/100 images, 2 failed, 2.0 images/s, – left; gpu0@a waits: no space left at /data"
    )
    loading = {"gpu0@a": "downloading org/sd: 3 of 12 files, 4.1 of 23.8 GB, 41 s"}
    assert show.progress_line(job_status(notices={}, loading=loading)) == (
        "cats-1: running, 38/100 images, 2 failed, 2.0 images/s, 30s left"
        "; gpu0@a: downloading org/sd: 3 of 12 files, 4.1 of 23.8 GB, 41 s"
    )
    quiet = job_status(failed=0, images_per_second=0.0, notices={})
    assert show.progress_line(quiet) == "cats-1: running, 38/100 images, – images/s, – left"


def test_a_job_as_json_has_every_field_and_the_time_left(job_status: MakeStatus) -> None:
    report = json.loads(json.dumps(show.as_json(job_status(notices={}))))
    assert set(report) == {field.name for field in dataclasses.fields(JobStatus)} | {"eta_seconds"}
    assert (report["job_id"], report["done"], report["eta_seconds"]) == ("cats-1", 38, 30.0)
    assert report["refusals"] == {"gpu1@b": "m: not there"}
    assert json.loads(json.dumps(show.as_json(job_status(images_per_second=0.0))))["eta_seconds"] is None


def test_one_job_in_full(capsys: pytest.CaptureFixture[str], job_status: MakeStatus) -> None:
    failures = {n: {"image_id": f"{n:016x}", "reason": f"black {n}"} for n in range(12)}
    show.print_job(job_status(loading={"gpu1@b": "loading org/sd: 41 s"}), WORKERS, failures)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:10] == [
        "cats-1: running",
        "  output    /data/cats",
        "  images    38 of 100 done, 2 failed, 60 left, 7 were already there",
        "  shards    10 in all, 4 waiting, 2 being rendered",
        "  rate      2.0 images/s, – left",
        "  model     org/sd, priority 5, run 1",
        "  workers   gpu0@a on it, of gpu0@a, gpu1@b",
        "  waiting   gpu0@a: no space left at /data",
        "  loading   gpu1@b: loading org/sd: 41 s",
        "  refused   by gpu1@b: m: not there",
    ]
    assert lines[10] == "  failure   image 0 (0000000000000000): black 0"
    assert len(lines) == 10 + 10 + 1
    assert "2 more" in lines[-1] and "failures.jsonl" in lines[-1]


def test_a_shard_that_was_set_aside_is_reported_by_status_and_at_the_end(
    capsys: pytest.CaptureFixture[str], job_status: MakeStatus
) -> None:
    ended = job_status(state="finished", outcome="failures", left=4, broken={3: "cannot be read"})
    show.print_job(ended, WORKERS, {})
    assert "  set aside shard 3: cannot be read\n" in capsys.readouterr().out
    show.print_end(ended)
    assert capsys.readouterr().out.startswith(
        "shards 3 could not be read in Redis: submit the manifest again"
    )


def test_a_job_that_ended_early_says_why_and_one_without_workers_says_none(
    capsys: pytest.CaptureFixture[str], job_status: MakeStatus
) -> None:
    stopped = job_status(
        state="finished", outcome="stopped", reason="9 images failed", workers=[], notices={}
    )
    show.print_job(stopped, {}, {})
    out = capsys.readouterr().out
    assert out.startswith("cats-1: stopped (9 images failed)\n")
    assert "  workers   – on it, of none alive\n" in out


def test_all_jobs_are_a_line_each_in_columns(
    capsys: pytest.CaptureFixture[str], job_status: MakeStatus
) -> None:
    moving, still = (
        job_status(notices={}),
        job_status(job_id="a-long-name-12", images_per_second=0.0, output="/data/a\nb"),
    )
    show.print_jobs([moving, still], {"w": {}})
    header, first, second, workers = capsys.readouterr().out.splitlines()
    assert header.split() == ["job", "state", "images", "failed", "images/s", "left", "output"]
    assert first.split() == ["cats-1", "running", "38/100", "2", "2.0", "30s", "/data/cats"]
    assert second.split() == ["a-long-name-12", "running", "38/100", "2", "–", "–", r"/data/a\nb"]
    assert first.index("running") == second.index("running") == header.index("state")
    assert workers == "1 worker"


def test_without_jobs_there_is_a_header_and_the_workers(capsys: pytest.CaptureFixture[str]) -> None:
    show.print_jobs([], {})
    assert capsys.readouterr().out.splitlines()[-1] == "0 workers"


def test_a_terminal_gets_a_table_with_paths_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, job_status: MakeStatus
) -> None:
    """Square brackets are rich's markup and may stand in a path."""
    monkeypatch.setattr(show, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    show.print_jobs([job_status(output="/data/[red]cats[/b]")], WORKERS)
    out = capsys.readouterr().out
    assert "/data/[red]cats[/b]" in out
    assert "2 workers" in out


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"outcome": "complete"},
            "finished: 100 images in /data/cats, 50s, 2.0 images/s; 7 were already there",
        ),
        (
            {"outcome": "failures", "done": 97, "failed": 3, "flagged": 2, "held": 0},
            "finished, with failures: 97 images in /data/cats, 50s, 2.0 images/s, 3 failed (see "
            "failures.jsonl), 2 flagged (see metadata.jsonl)",
        ),
        (
            {"outcome": "complete", "total": 1, "done": 1, "failed": 0, "held": 1},
            "finished: 1 image in /data/cats, 50s, 2.0 images/s; 1 was already there",
        ),
        # The first run's images are not the second run's work.
        (
            {"outcome": "complete", "run": 2, "images_per_second": 0.0, "held": 0},
            "finished: 100 images in /data/cats",
        ),
        (
            {"outcome": "cancelled", "reason": "enough", "done": 24, "left": 76, "held": 0},
            "cancelled (enough): 24 of 100 images rendered, 50s, 2.0 images/s; those of unfinished shards "
            "stay in the spool of /data/cats for the next submission",
        ),
        (
            {"outcome": "failures", "done": 24, "left": 76, "held": 0},
            "finished, with failures: 24 of 100 images counted, 50s, 2.0 images/s; Redis lost what it knew "
            "of the others: `imagemill retry cats-1` renders those that /data/cats lacks; if Redis lost its "
            "shards, too, submit the manifest again",
        ),
        # Cancelled before any worker took it.
        (
            {
                "outcome": "cancelled",
                "done": 0,
                "left": 100,
                "held": 0,
                "started": 0.0,
                "images_per_second": 0.0,
            },
            "cancelled: 0 of 100 images rendered; those of unfinished shards stay in the spool of /data/cats "
            "for the next submission",
        ),
    ],
)
def test_the_last_line_says_how_many_images_where_and_how_fast(
    changes: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str], job_status: MakeStatus
) -> None:
    end = {"state": "finished", "done": 100, "left": 0, "failed": 0, "ended": 1051.0}
    show.print_end(job_status(**end | changes))
    assert capsys.readouterr().out == line + "\n"


def test_prompts_that_were_cut_are_counted_at_the_end_with_the_remedy(
    capsys: pytest.CaptureFixture[str], job_status: MakeStatus
) -> None:
    show.print_end(job_status(state="finished", outcome="complete", done=100, left=0, failed=0, cut=12))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("12 prompts were longer than the model's window and were cut")
    assert "prompt_cut" in last and "long_prompts: chunk" in last
    show.print_job(job_status(cut=1), WORKERS, {})
    assert "  prompts   1 prompt was longer" in capsys.readouterr().out
    show.print_job(job_status(), WORKERS, {})
    assert "longer" not in capsys.readouterr().out


def test_flagged_pictures_are_reported_while_the_job_runs(
    capsys: pytest.CaptureFixture[str], job_status: MakeStatus
) -> None:
    doubted = job_status(flagged=3)
    assert "2 failed, 3 flagged (see metadata.jsonl), 2.0 images/s" in show.progress_line(doubted)
    show.print_job(doubted, WORKERS, {})
    assert "60 left, 7 were already there, 3 flagged (see metadata.jsonl)\n" in capsys.readouterr().out


HOSTILE = "x\nfinished: 100 images \x1b[2J\x9b31m\u202e[bold]"


@pytest.mark.parametrize("state", ["sealed", "finished"])
@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_that_comes_from_redis_makes_a_line_or_moves_a_terminal(
    state: str,
    terminal: bool,
    job_status: MakeStatus,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(show, "is_terminal", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    each = {HOSTILE: HOSTILE}
    job = job_status(
        job_id=HOSTILE, state=state, outcome=HOSTILE, ending=HOSTILE, reason=HOSTILE, output=HOSTILE,
        model=HOSTILE, refusals=each, workers=[HOSTILE], notices=each, loading=each, broken={3: HOSTILE},
        trouble=HOSTILE,
    )  # fmt: skip
    failures = {3: {"image_id": HOSTILE, "reason": HOSTILE}}
    show.print_jobs([job], {HOSTILE: {}})
    show.print_job(job, {HOSTILE: {}}, failures)
    show.print_end(job)
    show.print_skipped(1, [HOSTILE], HOSTILE)
    show.say(show.progress_line(job))
    said = capsys.readouterr()
    for line in (said.out + said.err).splitlines():
        assert line.isprintable(), ascii(line)
        assert not line.startswith("finished: 100"), line


def test_an_error_keeps_its_lines_and_moves_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(**_: object) -> None:
        raise JobError("cats-1: no worker takes it: \x1b[2J\nFix that, then go on")

    monkeypatch.setattr(cli, "command", run)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: cats-1: no worker takes it: \\x1b[2J\nFix that, then go on\n"
