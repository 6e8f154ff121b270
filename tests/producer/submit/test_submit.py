"""A submission stores what the output lacks, in shards, each image once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import JobError, LatentsError, LedgerUnavailable, ManifestError, OutputError
from jobs.ledger.shard import decode_shard
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.requests.prepared import prepare
from producer.submit.report import print_submitted
from producer.submit.retry import retry_job
from producer.submit.submit import Submitted, submit_manifest
from tests.producer.submit.desk import Desk
from tests.producer.submit.interrupted import Interrupted


def test_a_job_of_many_shards_holds_every_image_once_in_the_manifests_order(desk: Desk) -> None:
    counting = Interrupted(desk.url)
    counting.nth = 1_000_000
    done = desk.submit(299, ledger=counting)
    # 150 shards in chunks of 64; the last seals.
    assert counting.adds == 3
    assert done == Submitted(
        job_id="cats-1",
        attached=False,
        images=299,
        held=0,
        duplicates=0,
        output=str(desk.output.path),
        remark=done.remark,
    )
    assert desk.shard_numbers("cats-1") == list(range(150))
    stored = desk.stored("cats-1")
    assert [stored[index] for index in range(299)] == desk.asked()
    status = desk.ledger.status("cats-1")
    assert (status.state, status.total, status.left, status.shards_ready) == ("sealed", 299, 299, 150)


def test_workers_are_woken_before_the_last_chunk_is_stored_about_twice_their_slots(desk: Desk) -> None:
    desk.ledger.heartbeat("w1", {"slots": 2})
    desk.ledger.heartbeat("w2", {"slots": 3})
    with pytest.raises(LedgerUnavailable):
        desk.submit(299, ledger=Interrupted(desk.url))
    assert desk.queued() == 10
    desk.submit(299)
    assert desk.queued() == 11


def test_without_a_worker_a_few_wake_ups_wait_for_the_first(desk: Desk) -> None:
    desk.submit(1)
    assert desk.queued() == 2


def test_what_the_output_holds_is_in_no_shard_and_numbers_go_on_from_it(desk: Desk) -> None:
    desk.write(9)
    asked = desk.asked()
    desk.put_in_output(4, [asked[0], asked[3], asked[8]])
    done = desk.submit(9)
    assert (done.images, done.held) == (6, 3)
    stored = desk.stored("cats-1")
    # The index of a line is its place in the manifest.
    assert sorted(stored) == [1, 2, 4, 5, 6, 7]
    assert all(stored[index] == asked[index] for index in stored)
    assert desk.shard_numbers("cats-1") == [5, 6, 7]
    assert desk.ledger.first_shard("cats-1") == 5


def test_a_manifest_of_which_everything_is_there_has_only_to_be_finished(desk: Desk) -> None:
    desk.write(3)
    desk.put_in_output(0, desk.asked())
    done = desk.submit(3)
    assert (done.images, done.held) == (0, 3)
    assert desk.ledger.status("cats-1").state == "finishing"
    assert desk.queued() == 1
    desk.finish()
    assert desk.ledger.status("cats-1").outcome == "complete"


def test_a_line_twice_is_rendered_once_and_counted(desk: Desk) -> None:
    line = {"prompt": "a cat", "seed": 7}
    done = desk.submit([line, "a dog", line, line])
    assert (done.images, done.duplicates) == (2, 2)


def test_limit_takes_the_first_and_sample_the_same_few_each_time(desk: Desk) -> None:
    assert desk.submit(20, limit=3).images == 3
    assert [entry.request.prompt for _, entry in sorted(desk.stored("cats-1").items())] == [
        "picture 0",
        "picture 1",
        "picture 2",
    ]
    with pytest.raises(JobError, match="cats-1 is writing there"):
        desk.submit(20, limit=4)
    desk.client.flushall()
    drawn = []
    for _ in range(2):
        job_id = desk.submit(20, sample=5).job_id
        stored = desk.stored(job_id)
        drawn.append([stored[index] for index in range(5)])
        desk.client.flushall()
    assert drawn[0] == drawn[1]
    numbers = [int(entry.request.prompt.split()[1]) for entry in drawn[0]]
    assert numbers == sorted(numbers)
    assert numbers != list(range(5))


def test_the_spec_holds_what_a_worker_needs_and_the_manifest_with_its_revision(desk: Desk) -> None:
    lines = [{"prompt": "a cat", "columns": {"breed": "tabby"}}, {"prompt": "a dog", "columns": {"age": 3}}]
    desk.submit(
        lines,
        limit=2,
        priority=2,
        max_failures=9,
        retention=60,
        image_format="webp",
        precision="amp",
        settings={"height": 64, "width": 72, "num_inference_steps": 7, "scheduler": "ddim"},
    )
    spec = desk.ledger.spec("cats-1")
    assert ImageRequest.from_mapping(spec.base) == ImageRequest(
        prompt="",
        seed=0,
        height=64,
        width=72,
        num_inference_steps=7,
        scheduler="DDIM",
        model="instant",
        revision="instant-1",
        precision="amp",
        image_format="webp",
    )
    assert (spec.name, spec.model, spec.revision, spec.precision) == ("cats", "instant", "instant-1", "amp")
    assert (spec.output, list(spec.column_names)) == (str(desk.output.path), ["breed", "age"])
    assert (spec.shard_size, spec.priority, spec.max_failures, spec.retention) == (2, 2, 9, 60)
    assert spec.narrowed == "--limit 2"
    assert spec.manifest["revision"] == "instant-1"
    assert "prompts" not in spec.manifest
    kept = json.loads((desk.output.jobs / "cats-1.json").read_text())
    assert (kept["revision"], kept["prompts"]) == ("instant-1", lines)
    assert (kept.pop("narrowed"), kept.pop("files")) == ("--limit 2", {})
    del kept["prompts"]
    assert kept == spec.manifest


def test_numbers_of_jobs_go_on_from_the_output_when_redis_was_wiped(desk: Desk) -> None:
    desk.submit(1)
    desk.client.flushall()
    assert desk.submit(1).job_id == "cats-2"


def test_a_wrong_manifest_writes_nothing_anywhere(desk: Desk) -> None:
    with pytest.raises(ManifestError, match="width = 63"):
        desk.submit(3, settings={"width": 63})
    with pytest.raises(LatentsError, match="there is no such file"):
        desk.submit([{"prompt": "x", "init_latents": "gone.npy"}])
    assert not desk.output.path.exists()
    assert desk.client.keys("*") == []


def test_an_output_outside_the_root_writes_nothing_anywhere(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="IMAGEMILL_OUTPUT_ROOT"):
        prepare(desk.write(3), Settings(output_root=tmp_path / "root"))
    assert not desk.output.path.exists()


def test_a_redis_that_is_away_leaves_the_output_alone(desk: Desk, redis_server: EmbeddedRedis) -> None:
    redis_server.stop()
    with pytest.raises(LedgerUnavailable):
        desk.submit(3)
    assert not desk.output.path.exists()


def test_initial_latents_are_kept_in_the_output_by_their_hash(desk: Desk) -> None:
    np.save(desk.folder / "start.npy", np.ones((4, 8, 8), np.float32))
    job_id = desk.submit([{"prompt": "x", "init_latents": "start.npy"}, "y"]).job_id
    stored = desk.stored(job_id)
    sha = stored[0].request.init_latents
    assert sha is not None
    assert stored[1].request.init_latents is None
    assert [file.name for file in desk.output.inputs.iterdir()] == [f"{sha}.npy"]


def test_latents_that_changed_after_they_were_checked_are_reported(desk: Desk) -> None:
    np.save(desk.folder / "start.npy", np.ones((4, 8, 8), np.float32))
    prepared = prepare(desk.write([{"prompt": "x", "init_latents": "start.npy"}]), Settings())
    np.save(desk.folder / "start.npy", np.zeros((4, 8, 8), np.float32))
    with pytest.raises(LatentsError, match=r"start\.npy: changed after it was checked"):
        submit_manifest(prepared, desk.queue)
    assert desk.ledger.job_ids() == []


def test_prompt_files_are_submitted_and_what_was_skipped_is_reported(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk.folder / "p.csv").write_text("prompt,width,split\na,64,x\nb,65,y\nc,,z\n")
    files = {"prompts_from": {"file": "p.csv", "columns": ["split"]}}
    with pytest.raises(ManifestError, match=r"p\.csv:3: width = 65"):
        desk.submit(1, **files)
    assert desk.client.keys("*") == []
    done = desk.submit(1, **files, on_bad_row="skip")
    assert (done.images, done.skipped, len(done.skipped_rows)) == (3, 1, 1)
    stored = desk.stored(done.job_id)
    assert [stored[index] for index in range(3)] == desk.asked()
    assert [entry.columns for entry in desk.asked()] == [{}, {"split": "x"}, {"split": "z"}]
    assert list(desk.ledger.spec(done.job_id).column_names) == ["split"]
    print_submitted(done)
    shown = capsys.readouterr()
    assert "3 images to render, 1 row skipped" in shown.out
    row = f"{desk.folder}/p.csv:3: width = 65: must be a multiple of 8 (64 or 72)"
    assert shown.err == f"skipped: {row}\nskipped: all are listed in {done.skipped_file}\n"
    assert Path(str(done.skipped_file)).read_text() == f"{row.removeprefix(f'{desk.folder}/')}\n"


def test_comments_are_counted_and_a_file_without_a_prompt_is_no_job(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk.folder / "p.txt").write_text("# none\n\n#")
    with pytest.raises(ManifestError, match=r"p\.txt: holds no prompt: write one into it"):
        desk.submit(1, prompts_from="p.txt")
    assert desk.client.keys("*") == []
    (desk.folder / "p.txt").write_text("# one\n#\na fox\n")
    done = desk.submit(1, prompts_from="p.txt")
    assert done.images == 2
    print_submitted(done)
    assert "cats-1: left out: 2 lines beginning with # (comments)\n" in capsys.readouterr().out


def test_every_row_that_was_skipped_is_listed_in_the_output(desk: Desk) -> None:
    (desk.folder / "p.csv").write_text("prompt,width\n" + "a,65\n" * 50 + "b,64\n")
    done = desk.submit(1, prompts_from="p.csv", on_bad_row="skip")
    assert (done.images, done.skipped, len(done.skipped_rows)) == (2, 50, 20)
    lines = (desk.output.jobs / "cats-1.skipped.txt").read_text().splitlines()
    assert [line.split(":")[1] for line in lines] == [str(number) for number in range(2, 52)]


def test_a_wrong_row_writes_nothing_anywhere(desk: Desk) -> None:
    (desk.folder / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": 7}\n')
    with pytest.raises(ManifestError, match=r"p\.jsonl:2: prompt = 7"):
        desk.submit(1, prompts_from="p.jsonl")
    assert not desk.output.path.exists()
    assert desk.ledger.job_ids() == []


def test_a_full_folder_for_temporary_files_is_reported(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("producer.submit.packed.IN_MEMORY", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match=r"gone: cannot hold the packed shards .*TMPDIR"):
        desk.submit(5)
    assert desk.ledger.job_ids() == []


def test_sizes_do_not_share_a_shard_nor_do_they_when_sent_back(desk: Desk) -> None:
    done = desk.submit([{"prompt": f"picture {n}", "width": 64 + 8 * (n % 2)} for n in range(5)])
    spec = desk.ledger.spec(done.job_id)

    def sizes() -> list[set[int]]:
        blobs = desk.ledger.shard_blobs(done.job_id)
        shards = [decode_shard(blob, ImageRequest.from_mapping(spec.base), spec.name) for blob in blobs]
        return [{entry.request.width for entry in shard.entries} for shard in shards]

    assert [len(widths) for widths in sizes()] == [1, 1, 1]
    assert sorted(desk.stored(done.job_id)) == list(range(5))
    desk.ledger.control(done.job_id, "cancel")
    desk.finish()
    assert retry_job(done.job_id, desk.queue) == 5
    assert [len(widths) for widths in sizes()] == [1] * 6, "the cancelled ones are kept too"


def test_chunks_end_by_their_bytes_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.submit.chunk.MOST_BYTES", 1)
    stored: list[int] = []
    monkeypatch.setattr(
        "producer.submit.submit.failpoint", lambda name: stored.append(desk.ledger.status("cats-1").shards)
    )
    desk.submit(10)
    assert stored == [1, 2, 3, 4, 5]
