"""One shard under its lease: real ledger, engine, heartbeat and output; only the painting is a stand-in."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex

import numpy as np

from jobs.inputs.latents import write_input
from jobs.output.output import Output
from tests.worker.shard.bench import (
    SLOTS,
    Bench,
    Report,
    lines,
)
from worker.render import parse_request
from worker.render_inputs import inputs_of


def test_a_shard_is_recorded_as_it_goes_and_then_committed_and_completed(bench: Bench) -> None:
    bench.submit(lines(10))
    running = bench.begin_until(4)
    status = bench.status()
    assert (status.state, status.shards_leased, status.left) == ("sealed", 1, 6)
    assert bench.done() == {100, 101, 102, 103}
    assert not bench.output.committed(0)
    bench.painter.allowed.release(10)
    report = running.report()
    assert dataclasses.replace(report, seconds=0) == Report("cats-1", 0, "committed", 10, 0, 0, 0)
    bench.check_committed(10)
    status = bench.status()
    assert (status.state, status.done, status.left, status.shards_leased) == ("finishing", 10, 0, 0)
    assert bench.done() == set(range(100, 110))
    assert list(bench.output.spool.iterdir()) == []


def test_what_an_earlier_attempt_finished_is_adopted_and_only_the_rest_rendered(bench: Bench) -> None:
    bench.submit(lines(7))
    bench.other_attempt(1, 4, 6)
    report = bench.run()
    assert (report.ended, report.rendered, report.adopted, report.failed) == ("committed", 4, 3, 0)
    assert sorted(request.seed for request in bench.painter.seen) == [1, 3, 4, 6]
    bench.check_committed(7)
    assert bench.status().done == 7


def test_a_shard_of_which_everything_was_finished_needs_no_rendering(bench: Bench) -> None:
    bench.submit(lines(3))
    bench.other_attempt(0, 1, 2)
    assert bench.run().adopted == 3
    assert bench.painter.seen == []
    assert bench.status().state == "finishing"


def test_initial_latents_reach_the_renderer_and_missing_ones_fail_their_image_alone(bench: Bench) -> None:
    latents = np.arange(16, dtype=np.float32).reshape(4, 2, 2)
    sha, missing = write_input(bench.output.inputs, latents), "0" * 64
    bench.submit(lines(3, p1={"init_latents": sha}, p2={"init_latents": missing}))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 2, 1)
    given = {
        request.seed: latent
        for request, latent in zip(bench.painter.seen, bench.painter.latents, strict=True)
    }
    assert given[1] is None
    assert np.array_equal(given[2], latents)  # type: ignore[arg-type]
    failures = bench.ledger.failures(bench.job_id)
    assert list(failures) == [102]
    assert f"{missing}.npy: there is no such file" in failures[102]["reason"]
    assert [failure.position for failure in bench.output.shard_failures(0)] == [2]


def test_an_image_that_fails_is_reported_with_its_reason_and_stands_beside_its_neighbours(
    bench: Bench,
) -> None:
    bench.submit(lines(5, p2={"prompt": "raise"}))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 4, 1)
    bench.check_committed(4)
    assert bench.ledger.failures(bench.job_id)[102]["reason"].startswith("raised RuntimeError: no such token")
    kept = bench.output.shard_failures(0)
    assert [(failure.position, failure.entry) for failure in kept] == [(2, bench.entries[2])]


def test_a_job_of_tars_is_committed_and_recorded_as_one_of_folders(tar_bench: Bench) -> None:
    tar_bench.submit(lines(5, p2={"prompt": "raise"}))
    report = tar_bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 4, 1)
    tar_bench.check_committed(4)
    assert [failure.position for failure in tar_bench.output.shard_failures(0)] == [2]
    names = sorted(file.name for file in tar_bench.output.path.iterdir() if file.name[0] != ".")
    assert names == ["00000.parquet", "00000.tar"]
    assert (tar_bench.status().done, tar_bench.status().failed) == (4, 1)


def test_slots_that_do_not_fit_are_halved_for_the_job_and_reported_in_the_metadata(bench: Bench) -> None:
    bench.submit(lines(6))
    bench.painter.most_slots = 2
    assert bench.run().ended == "committed"
    bench.check_committed(6)
    assert {record["rendered_rows"] for record in bench.output.records(0)} == {2}
    bench.ledger.finish(bench.claim())
    bench.engine.close()
    bench.spec = dataclasses.replace(bench.spec, output=str(bench.root / "next"))
    bench.output = Output(bench.root / "next")
    bench.output.prepare()
    bench.submit(lines(2))
    bench.start_engine()
    bench.run()
    assert bench.painter.measured == []
    assert {record["rendered_rows"] for record in bench.output.records(0)} == {SLOTS}


def test_a_failures_command_has_the_slots_that_fitted(bench: Bench) -> None:
    bench.submit(lines(3, p1={"prompt": "raise"}))
    bench.painter.most_slots = 2
    assert bench.run().failed == 1
    [failure] = bench.output.shard_failures(0)
    assert failure.command.startswith("imagemill-worker --batch-size 2 render --request ")


def test_a_failures_command_says_to_name_the_folder_of_files_that_were_not_copied(bench: Bench) -> None:
    photo = bench.root / "holiday.jpg"
    photo.write_bytes(b"a photo")
    sha = hashlib.sha256(b"a photo").hexdigest()
    bench.submit(lines(2, p1={"prompt": "raise", "image": sha, "strength": 0.5}), {sha: str(photo)})
    assert bench.run().failed == 1
    [failure] = bench.output.shard_failures(0)
    words = shlex.split(failure.command)
    assert words[-2:] == ["--inputs", "PATH/TO/INPUTS"]
    # Neither the folder nor the file's name is told by an output; those who know it name it.
    assert str(bench.root) not in failure.command and "holiday" not in failure.command
    request = parse_request(words[words.index("--request") + 1])
    assert inputs_of(request, [bench.root]).contents(sha) == b"a photo"


def test_pictures_of_several_sizes_each_go_into_slots_of_their_own(bench: Bench) -> None:
    bench.submit(lines(6, p1={"width": 16}, p4={"width": 16}))
    assert bench.run().ended == "committed"
    assert bench.painter.measured == [(8, 8), (8, 16)]
    bench.check_committed(6)
