"""What may be seen: outputs of jobs and those that were named, by keys that are no paths."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import OutputError
from jobs.ledger.ledger_view import LedgerView
from jobs.output.output import Output
from producer.embedded_redis import EmbeddedRedis
from producer.serve.ledger_watch import LedgerWatch
from producer.serve.outputs import Outputs, key_of


def test_the_outputs_of_jobs_and_those_that_were_named_are_found_and_no_other(
    redis_server: EmbeddedRedis, submit_job: Callable[..., str], tmp_path: Path
) -> None:
    submit_job(output="/data/cats")
    named = Output(tmp_path / "named")
    outputs = Outputs([named], LedgerWatch(lambda: LedgerView(redis_server.url)))
    assert outputs.labels() == [named.label, "/data/cats"]
    assert outputs.find(key_of(named.label)) == named
    assert outputs.find(key_of("/data/cats")) == Output(Path("/data/cats"))
    for other in (key_of("/etc"), "/etc", "", "..", named.label, key_of("/data")):
        assert outputs.find(other) is None, other


def test_a_key_is_of_one_form_whatever_the_label_is() -> None:
    labels = ["/data/cats", "s3://bucket/cats", "/data/\udcff", "/data/<b>", "x" * 5000]
    keys = [key_of(label) for label in labels]
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in keys)
    assert len(set(keys)) == len(keys)


def test_an_output_that_cannot_be_one_here_is_none(
    redis_server: EmbeddedRedis, submit_job: Callable[..., str]
) -> None:
    job_id = submit_job()
    watch = LedgerWatch(lambda: LedgerView(redis_server.url))
    watch.ledger.client.hset(f"imagemill:job:{job_id}", "output", "no/absolute/path")
    with pytest.raises(OutputError, match="no/absolute/path"):
        Outputs([], watch).find(key_of("no/absolute/path"))


def test_a_job_shows_no_output_outside_of_the_root_and_the_command_line_any(
    redis_server: EmbeddedRedis, submit_job: Callable[..., str], tmp_path: Path
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "cats", outside):
        folder.mkdir(parents=True)
    (root / "linked").symlink_to(outside)
    watch = LedgerWatch(lambda: LedgerView(redis_server.url))
    for label in ("root/cats", "root/linked", "outside"):
        submit_job(output=str(tmp_path / label))
    outputs = Outputs([], watch, str(root))
    assert outputs.find(key_of(str(root / "cats"))) == Output(root / "cats")
    for label in ("root/linked", "outside"):
        with pytest.raises(OutputError, match=f"{label}.* lies outside IMAGEMILL_OUTPUT_ROOT"):
            outputs.find(key_of(str(tmp_path / label)))
    assert Outputs([Output(outside)], watch, str(root)).find(key_of(str(outside))) == Output(outside)
