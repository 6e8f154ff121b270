"""A submission stores what the output lacks, in shards, each image once, however often it is interrupted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.errors import JobError, LatentsError, LedgerUnavailable, ManifestError, OutputError
from jobs.ledger import redis_keys
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import decode_shard, encode_shard
from jobs.output.equal_lines import noted_lines
from jobs.output.job_files import JobFiles
from jobs.output.lines import line_key
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.requests.prepared import prepare
from producer.submit.report import print_submitted
from producer.submit.retry import retry_job
from producer.submit.submit import Submitted, packed_for, store, submit_manifest
from tests.producer.submit.desk import Desk
from tests.reported import Reported
from tests.waiting import LONGEST

Place = Callable[..., Submitted]


class Interrupted(Ledger):
    """Goes away at the `nth` add."""

    nth = 2
    adds = 0

    def add(self, *arguments: Any, **named: Any) -> None:
        self.adds += 1
        if self.adds == self.nth:
            raise LedgerUnavailable("Redis does not answer")
        super().add(*arguments, **named)


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


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_an_interrupted_submission_is_resumed_and_gives_every_image_once(desk: Desk, nth: int) -> None:
    """Interrupted before the first chunk, between chunks, and before the last, which seals."""
    ledger = Interrupted(desk.url)
    ledger.nth = nth
    lines = [f"picture {n % 290}" for n in range(280)] + [{"prompt": "twice", "seeds": [3, 3, 4]}]
    with pytest.raises(LedgerUnavailable):
        desk.submit(lines, ledger=ledger)
    assert desk.ledger.status("cats-1").state == "open"
    done = desk.submit(lines)
    assert (done.job_id, done.attached, done.images, done.duplicates) == ("cats-1", True, 282, 1)
    stored = desk.stored("cats-1")
    assert [stored[index] for index in range(282)] == desk.asked()
    assert desk.shard_numbers("cats-1") == list(range(141))
    assert desk.ledger.status("cats-1").state == "sealed"


def test_one_that_is_overtaken_by_another_submit_of_the_same_manifest_joins_it(desk: Desk) -> None:
    class Slow(Ledger):
        """While this one is between two adds, another submits the manifest whole."""

        adds = 0

        def add(self, *arguments: Any, **named: Any) -> None:
            self.adds += 1
            if self.adds == 2:
                assert desk.submit(299).attached
            super().add(*arguments, **named)

    done = desk.submit(299, ledger=Slow(desk.url))
    assert (done.job_id, done.images) == ("cats-1", 299)
    stored = desk.stored("cats-1")
    assert [stored[index] for index in range(299)] == desk.asked()


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


def test_another_manifest_for_a_taken_output_is_refused_and_the_first_job_unharmed(desk: Desk) -> None:
    desk.submit(3)
    before = desk.stored("cats-1")
    with pytest.raises(JobError, match="imagemill cancel cats-1"):
        desk.submit(4)
    assert desk.stored("cats-1") == before
    assert desk.ledger.job_ids() == ["cats-1"]


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


def test_an_interrupted_submission_of_files_goes_on_only_with_the_same_files(desk: Desk) -> None:
    file = desk.folder / "p.txt"
    text = "".join(f"row {n}\n" for n in range(290))
    file.write_text(text)
    with pytest.raises(LedgerUnavailable):
        desk.submit(1, prompts_from="p.txt", ledger=Interrupted(desk.url))
    file.write_text(text.replace("row 7\n", "row seven\n"))
    with pytest.raises(JobError) as caught:
        desk.submit(1, prompts_from="p.txt")
    assert str(caught.value) == (
        f"{file}: not as it was when cats-1 was begun: put it back to resume cats-1, or "
        "`imagemill cancel cats-1` and submit again"
    )
    # Another manifest is another message.
    with pytest.raises(JobError, match="cats-1 is writing there, from another manifest"):
        desk.submit(2, prompts_from="p.txt")
    file.write_text(text)
    done = desk.submit(1, prompts_from="p.txt")
    assert (done.attached, done.images) == (True, 291)
    stored = desk.stored("cats-1")
    assert [stored[index] for index in range(291)] == desk.asked()


def test_a_wrong_row_writes_nothing_anywhere(desk: Desk) -> None:
    (desk.folder / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": 7}\n')
    with pytest.raises(ManifestError, match=r"p\.jsonl:2: prompt = 7"):
        desk.submit(1, prompts_from="p.jsonl")
    assert not desk.output.path.exists()
    assert desk.ledger.job_ids() == []


def test_a_job_goes_on_though_workers_have_committed_some_of_its_shards(desk: Desk) -> None:
    """Their pictures are in the output by then, but no reason to leave lines out."""
    with pytest.raises(LedgerUnavailable):
        desk.submit(299, ledger=Interrupted(desk.url))
    for _ in range(5):
        desk.render()
    done = desk.submit(299)
    assert (done.attached, done.images, done.held) == (True, 299, 0)
    stored = sorted(desk.stored(done.job_id).items())
    assert [entry.request.prompt for _, entry in stored] == [f"picture {n}" for n in range(299)]


def test_a_job_whose_output_was_changed_meanwhile_is_not_resumed(desk: Desk) -> None:
    desk.write(299)
    desk.put_in_output(0, desk.asked()[:3])
    with pytest.raises(LedgerUnavailable):
        desk.submit(299, ledger=Interrupted(desk.url))
    (desk.output.shard_folder(0) / "1.png").unlink()
    with pytest.raises(JobError, match=r"changed since cats-1 was begun.*`imagemill cancel cats-1`"):
        desk.submit(299)


def test_what_another_job_rendered_while_this_one_was_packed_is_not_rendered_again(desk: Desk) -> None:
    prepared = prepare(desk.write(5), Settings())
    with packed_for(prepared, desk.ledger) as before:
        desk.submit(5)
        with packed_for(prepared, desk.ledger) as during:
            for _ in range(3):
                desk.render()
            desk.finish()
            assert store(during, desk.queue).held == 5
        desk.finish()
        done = store(before, desk.queue)
    assert (done.job_id, done.images, done.held) == ("cats-3", 0, 5)


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


def test_an_attempt_that_was_frozen_before_a_wipe_can_commit_no_more_once_a_job_begins_there(
    desk: Desk,
) -> None:
    desk.submit(4)
    frozen = desk.output.spool_folder(0, desk.claim().attempt)
    frozen.mkdir(parents=True)
    desk.client.flushall()
    desk.submit(4)
    assert not frozen.exists()


def test_a_redis_that_is_full_in_the_middle_is_waited_for_and_said_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr("producer.submit.chunk.MOST_SHARDS", 2)
    monkeypatch.setattr(
        "producer.submit.submit.failpoint", lambda name: desk.client.config_set("maxmemory", 1)
    )
    prepared = prepare(desk.write(10), Settings())
    reported = Reported()
    ends: list[Submitted] = []
    thread = threading.Thread(target=lambda: ends.append(submit_manifest(prepared, desk.queue, reported)))
    thread.start()
    wait_until(lambda: reported.lines, "it says what it waits for")
    assert "Redis is full" in reported.lines[0]
    assert (desk.ledger.status("cats-1").state, desk.ledger.status("cats-1").total) == ("open", 4)
    monkeypatch.setattr("producer.submit.submit.failpoint", lambda name: None)
    desk.client.config_set("maxmemory", 0)
    thread.join(LONGEST)
    assert (ends[0].job_id, ends[0].images) == ("cats-1", 10)
    assert len(reported.lines) <= 2, "once for each thing that waits"
    assert desk.ledger.status("cats-1").state == "sealed"


def test_chunks_end_by_their_bytes_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.submit.chunk.MOST_BYTES", 1)
    stored: list[int] = []
    monkeypatch.setattr(
        "producer.submit.submit.failpoint", lambda name: stored.append(desk.ledger.status("cats-1").shards)
    )
    desk.submit(10)
    assert stored == [1, 2, 3, 4, 5]


def noted(desk: Desk, job_id: str) -> list[tuple[int, str | None]]:
    """Place and id of the lines that share a picture, as the job's finishing finds them."""
    return [(one.index, one.id) for one in noted_lines(desk.output, job_id)]


def test_lines_of_one_picture_are_rendered_once_and_noted_with_their_places(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    cat = {"prompt": "a cat", "seed": 7}
    done = desk.submit([cat | {"id": "1"}, "a dog", cat | {"id": "2"}, cat | {"id": "1"}, "a bird", cat])
    assert (done.images, done.equal_lines, done.added_lines, done.duplicates) == (3, 2, 0, 1)
    assert sorted(desk.stored("cats-1")) == [0, 1, 3]
    assert noted(desk, "cats-1") == [(2, "2"), (4, None)]
    print_submitted(done)
    said = "cats-1: 5 lines, 3 pictures: 2 lines share a picture with an equal one"
    assert said in capsys.readouterr().out.splitlines()


def test_a_line_whose_picture_is_there_under_another_id_is_noted_and_submitting_again_notes_nothing(
    desk: Desk,
) -> None:
    def lines(*ids: str) -> list[dict[str, object]]:
        return [{"prompt": f"a {id[0]}", "seed": 7, "id": id} for id in ids]

    desk.write(lines("a1", "b1", "c1"))
    desk.put_in_output(0, desk.asked())
    metadata = desk.output.metadata_file(0)
    records = [json.loads(text) for text in metadata.read_text().splitlines()]
    for record, id in zip(records, ("a1", "b1", "c1"), strict=True):
        record["id"] = id
    metadata.write_text("".join(json.dumps(record) + "\n" for record in records))
    done = desk.submit(lines("a1", "b1", "c1"))
    assert (done.images, done.held, done.added_lines) == (0, 3, 0)
    assert not desk.output.store.exists(JobFiles(desk.output, "cats-1").equal_lines)
    desk.finish()
    done = desk.submit(lines("c1", "b2", "d1", "a1"))
    assert (done.images, done.held, done.added_lines) == (1, 3, 1)
    assert noted(desk, "cats-2") == [(1, "b2")]
    # What is there says the places of its own job: the order is kept beside it.
    assert desk.output.store.size(JobFiles(desk.output, "cats-2").line_order) == 4 * 8
    assert not desk.output.store.exists(JobFiles(desk.output, "cats-3").line_order)


def test_the_order_of_many_lines_is_kept_whole(desk: Desk) -> None:
    desk.write(9_000, shard_size=3_000)
    first, *_ = asked = desk.asked()
    desk.put_in_output(0, [first])
    assert desk.submit(9_000, shard_size=3_000).held == 1
    kept = desk.output.store.read(JobFiles(desk.output, "cats-1").line_order)
    keys = [line_key(one.request.image_id, one.id, one.columns) for one in asked]
    assert np.frombuffer(kept, "<u8").tolist() == keys


def test_a_submission_that_an_earlier_version_began_is_refused_with_the_remedy(desk: Desk) -> None:
    with pytest.raises(LedgerUnavailable):
        desk.submit(299, ledger=Interrupted(desk.url))
    key = redis_keys.job("cats-1", "shards")
    base = ImageRequest.from_mapping(desk.ledger.spec("cats-1").base)
    for number, blob in desk.client.hgetall(key).items():
        shard = decode_shard(blob, base, "cats")
        desk.client.hset(key, number, encode_shard(replace(shard, in_order=False), base))
    with pytest.raises(JobError, match=r"cats-1: an earlier version.*imagemill cancel cats-1"):
        desk.submit(299)
