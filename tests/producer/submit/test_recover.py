"""A job that Redis lost is put back as it was, from its manifest and its output, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from jobs.entry import Entry
from jobs.errors import JobError, LeaseLost, LedgerUnavailable, OutputError
from jobs.ledger import redis_keys
from jobs.ledger.job import Claim, JobStatus, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import Shard, decode_shard
from jobs.models.models import BUILT_IN, ModelDefaults
from jobs.output.metadata import Failure, metadata_record
from jobs.output.output import Output
from jobs.output.output_lock import locked
from jobs.output.shard_names import FLAT
from jobs.output.store import Stage
from jobs.output.stored_shard import LayoutName
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.job_queue import JobQueue
from producer.reporter import Quiet
from producer.requests.prepared import prepare
from producer.submit.recover import Recovered, recover_job
from producer.submit.report import print_recovered
from producer.submit.retry import retry_job
from producer.submit.submit import submit_manifest


class Desk:
    """A folder with a manifest and its output, a Redis that may lose everything, and a played worker."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.file = folder / "cats.yaml"
        self.queue = JobQueue.at(url)
        self.ledger = self.queue.ledger
        self.client: Any = redis.Redis.from_url(url)
        self.output = Output(folder / "out")
        self.layout: LayoutName = "files"

    def write(self, prompts: Sequence[object] | int, **keys: object) -> None:
        lines = [f"picture {n}" for n in range(prompts)] if isinstance(prompts, int) else list(prompts)
        manifest = {
            "name": "cats",
            "model": "instant",
            "output": str(self.output.path),
            "layout": self.layout,
            "shard_size": 4,
            "settings": {"height": 64, "width": 64},
            "prompts": lines,
        } | keys
        self.file.write_text(json.dumps(manifest))  # JSON is YAML

    def submit(self, prompts: Sequence[object] | int, *, sample: int | None = None, **keys: object) -> str:
        self.write(prompts, **keys)
        return submit_manifest(prepare(self.file, Settings(), sample=sample), self.queue).job_id

    def claim(self) -> Claim:
        claim = self.ledger.claim("w1", WorkerState(idle_ms=9000), lease=30)
        assert claim is not None
        return claim

    def decoded(self, job_id: str, blob: bytes) -> Shard:
        spec = self.ledger.spec(job_id)
        return decode_shard(blob, ImageRequest.from_mapping(spec.base), spec.name)

    def render(self, failed: Collection[int] = (), flagged: Collection[int] = ()) -> list[int]:
        """Commits the next shard and records it in the ledger; returns the indices it was about."""
        claim = self.claim()
        assert claim.kind == "shard"
        shard, number = self.decoded(claim.job_id, claim.blob), int(claim.shard)
        images = self.output.spool_folder(number, claim.attempt) / "images"
        images.mkdir(parents=True)
        rows, failures = [], dict[int, Failure]()
        for position, (index, entry) in enumerate(zip(shard.indices, shard.entries, strict=True)):
            if index in failed:
                failures[index] = Failure(
                    shard=number,
                    position=position,
                    entry=entry,
                    reason="black",
                    job_id=claim.job_id,
                    command="",
                )
                continue
            name = f"{FLAT.key(number, position)}.png"
            (images / name).write_bytes(b"a picture")
            doubt = "one flat colour" if index in flagged else None
            names = {"file_name": name, "sha256": "", "job_id": claim.job_id, "flagged": doubt}
            rows.append(metadata_record(entry, **names, rendered={}, column_names=()))
        self.output.stored(number, self.layout).commit(
            images, rows, list(failures.values()), Stage(images.parent, "x", lambda: None)
        )
        found = {
            index: {"shard": number, "position": one.position, "image_id": one.image_id, "reason": one.reason}
            for index, one in failures.items()
        }
        done = [index for index in shard.indices if index not in failed]
        self.ledger.complete(claim, done, found, set(flagged) & set(done))
        return list(shard.indices)

    def finish(self) -> None:
        claim = self.claim()
        assert claim.kind == "finish"
        self.ledger.finish(claim)

    def lose(self) -> None:
        self.client.flushall()

    def recover(self, ledger: Ledger | None = None) -> Recovered:
        queue = self.queue if ledger is None else replace(self.queue, ledger=ledger)
        return recover_job(self.file, Settings(), queue)

    def entries(self, job_id: str) -> dict[int, Entry]:
        """What lies in the job's shards, by index; an image in two shards fails the test."""
        found: dict[int, Entry] = {}
        for blob in self.ledger.shard_blobs(job_id):
            shard = self.decoded(job_id, blob)
            for index, entry in zip(shard.indices, shard.entries, strict=True):
                assert index not in found
                found[index] = entry
        return found

    def waiting(self, job_id: str) -> list[int]:
        return [int(number) for number in self.client.lrange(redis_keys.job(job_id, "ready"), 0, -1)]

    def shard_numbers(self, job_id: str) -> list[int]:
        return sorted(int(number) for number in self.client.hkeys(redis_keys.job(job_id, "shards")))


def figures(status: JobStatus) -> tuple[int, ...]:
    return (status.total, status.left, status.done, status.failed, status.flagged, status.held)


@pytest.fixture
def desk(redis_server: EmbeddedRedis, tmp_path: Path) -> Desk:
    return Desk(redis_server.url, tmp_path)


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_a_job_half_done_is_put_back_as_it_was_and_goes_on(desk: Desk, layout: LayoutName) -> None:
    desk.layout = layout
    job_id = desk.submit([*(f"picture {n}" for n in range(13)), {"prompt": "mine", "seed": 3, "id": "a"}])
    assert [desk.render(failed=[2]), desk.render(flagged=[5])] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    before, spec = desk.ledger.status(job_id), desk.ledger.spec(job_id)
    kept = (desk.ledger.failures(job_id), bytes(desk.ledger.done_bits(job_id)), desk.entries(job_id))
    desk.lose()
    done = desk.recover()
    assert done == Recovered(
        job_id="cats-1",
        images=14,
        done=7,
        failed=1,
        flagged=1,
        left=6,
        held=0,
        output=str(desk.output.path),
        reason="",
        skipped=0,
        skipped_rows=(),
    )
    status = desk.ledger.status(job_id)
    assert figures(status) == figures(before) == (14, 6, 7, 1, 1, 0)
    assert (status.state, status.run) == ("sealed", 2)
    assert desk.ledger.spec(job_id) == spec
    after = (desk.ledger.failures(job_id), bytes(desk.ledger.done_bits(job_id)), desk.entries(job_id))
    assert after == kept
    assert (desk.shard_numbers(job_id), desk.waiting(job_id)) == ([0, 1, 2, 3], [2, 3])
    assert desk.ledger.first_shard(job_id) == 2
    assert desk.client.llen(redis_keys.QUEUE) == 2
    assert [desk.render(), desk.render()] == [[8, 9, 10, 11], [12, 13]]
    desk.finish()
    assert desk.ledger.status(job_id).outcome == "failures"
    assert retry_job(job_id, desk.queue) == 1
    assert desk.render() == [2]
    desk.finish()
    status = desk.ledger.status(job_id)
    assert (status.outcome, figures(status)) == ("complete", (14, 0, 14, 0, 1, 0))


def test_a_finished_job_is_put_back_to_be_finished_again_and_retried(desk: Desk) -> None:
    job_id = desk.submit(6)
    desk.render(failed=[0])
    desk.render()
    desk.finish()
    desk.lose()
    assert (desk.recover().left, desk.ledger.status(job_id).state) == (0, "finishing")
    assert desk.client.llen(redis_keys.QUEUE) == 1
    desk.finish()
    assert desk.ledger.status(job_id).outcome == "failures"
    assert retry_job(job_id, desk.queue) == 1
    assert desk.render() == [0]
    desk.finish()
    assert desk.ledger.status(job_id).outcome == "complete"


def test_what_failed_and_was_rendered_by_a_retry_is_done_once(desk: Desk) -> None:
    job_id = desk.submit(6)
    desk.render(failed=[0, 1])
    desk.render()
    desk.finish()
    retry_job(job_id, desk.queue)
    desk.render(failed=[1])
    desk.lose()
    done = desk.recover()
    assert (done.images, done.done, done.failed, done.left) == (6, 5, 1, 0)
    (failure,) = desk.ledger.failures(job_id).values()
    assert (failure["shard"], failure["position"]) == (2, 1)
    assert sorted(desk.entries(job_id)) == list(range(6))


def test_pictures_of_other_jobs_are_held_but_what_the_job_failed_at_is_its_own(desk: Desk) -> None:
    assert desk.submit(3) == "cats-1"
    desk.render()
    desk.finish()
    job_id = desk.submit(10)
    desk.render(failed=[4])
    before = desk.ledger.status(job_id)
    desk.lose()
    # Another job has the failed one, by now.
    failed = desk.output.failures()[0].entry
    images = desk.folder / "images"
    images.mkdir()
    (images / "0.png").write_bytes(b"a picture")
    row = metadata_record(failed, file_name="0.png", sha256="", job_id="dogs-1", rendered={}, column_names=())
    desk.output.stored(7).commit(images, [row], [], Stage(images.parent, "x", lambda: None))
    done = desk.recover()
    assert (done.job_id, done.images, done.done, done.failed, done.held) == ("cats-2", 7, 4, 0, 3)
    assert (before.total, before.done, before.failed, before.held) == (7, 3, 1, 3)
    assert desk.ledger.done_bits(job_id)[4]
    assert desk.waiting(job_id) == [8]
    print_recovered(done)


def test_a_sample_is_recovered_as_a_sample(desk: Desk) -> None:
    job_id = desk.submit(40, sample=6)
    desk.render()
    asked = desk.entries(job_id)
    desk.lose()
    assert (desk.recover().images, desk.entries(job_id)) == (6, asked)
    assert desk.ledger.spec(job_id).narrowed == "--sample 6"


def test_sizes_do_not_share_a_shard_that_is_to_be_rendered(desk: Desk) -> None:
    job_id = desk.submit([{"prompt": f"picture {n}", "width": 64 + 8 * (n % 2)} for n in range(9)])
    desk.render()
    desk.lose()
    assert desk.recover().left == 5
    entries = desk.entries(job_id)
    assert sorted(entries) == list(range(9))
    rendered = {entries[index].request.width for index in range(9) if desk.ledger.done_bits(job_id)[index]}
    assert len(rendered) == 1
    for _ in desk.waiting(job_id):
        assert len({entries[index].request.width for index in desk.render()}) == 1
    desk.finish()
    assert desk.ledger.status(job_id).outcome == "complete"


def test_submitting_a_recovered_manifest_again_joins_its_job(desk: Desk) -> None:
    job_id = desk.submit(9)
    desk.render()
    desk.lose()
    desk.recover()
    assert submit_manifest(prepare(desk.file, Settings()), desk.queue).attached
    assert desk.ledger.job_ids() == [job_id]
    while desk.waiting(job_id):
        desk.render()
    desk.finish()
    assert desk.submit(10) == "cats-2"


def test_a_redis_that_knows_jobs_of_the_name_from_elsewhere_keeps_their_numbers(desk: Desk) -> None:
    desk.submit(3)
    desk.lose()
    desk.submit(3, name="dogs", output=str(desk.folder / "dogs"))
    for number in range(2, 5):
        desk.submit(3, output=str(desk.folder / f"out{number}"))
        desk.client.hset(redis_keys.NUMBERS, "cats", number)
    desk.write(3)
    with pytest.raises(JobError, match="cats-1 is not lost"):
        desk.recover()
    desk.client.delete(redis_keys.job("cats-1"))
    desk.recover()
    assert desk.client.hget(redis_keys.NUMBERS, "cats") == b"4"


def test_a_recovered_job_has_every_field_and_key_of_a_submitted_one_and_no_ttl(desk: Desk) -> None:
    job_id = desk.submit(9, max_failures=7)
    desk.render(failed=[1], flagged=[2])
    submitted = {
        "hash": {*desk.client.hkeys(redis_keys.job(job_id))},
        # Without what a claim leaves, of a job and of all.
        "keys": {*desk.client.keys("imagemill:*")}
        - {redis_keys.job(job_id, "workers").encode(), b"imagemill:reaped"},
    }
    types = {key: desk.client.type(key) for key in submitted["keys"]}
    desk.lose()
    desk.recover()
    assert {*desk.client.hkeys(redis_keys.job(job_id))} == submitted["hash"]
    assert {key: desk.client.type(key) for key in desk.client.keys("imagemill:*")} == types
    assert {desk.client.ttl(key) for key in submitted["keys"]} == {-1}


class CutShort(Ledger):
    """Goes away at the `nth` call that changes something."""

    nth = 1

    def _tick(self) -> None:
        self.nth -= 1
        if self.nth == 0:
            raise LedgerUnavailable("Redis does not answer")

    def stage(self, *arguments: Any) -> None:
        self._tick()
        super().stage(*arguments)

    def recover(self, *arguments: Any) -> None:
        self._tick()
        super().recover(*arguments)


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_recovery_that_is_cut_short_is_no_job_and_the_next_one_is_whole(desk: Desk, nth: int) -> None:
    """Two chunks of 64 shards and a rest, then the end."""
    job_id = desk.submit(520)
    desk.render(failed=[3])
    before = desk.ledger.status(job_id)
    desk.lose()
    ledger = CutShort(desk.url)
    ledger.nth = nth
    with pytest.raises(LedgerUnavailable):
        desk.recover(ledger)
    assert desk.ledger.job_ids() == []
    assert desk.ledger.claim("w1", WorkerState(idle_ms=9000), lease=30) is None
    left_behind = desk.client.keys("imagemill:job:*")
    assert len(left_behind) == int(nth > 1)
    assert all(0 < desk.client.ttl(key) <= 600 for key in left_behind)
    assert desk.recover().left == 516
    assert figures(desk.ledger.status(job_id)) == figures(before)
    assert sorted(desk.entries(job_id)) == list(range(520))


def test_of_two_recoveries_at_once_one_puts_the_job_back(desk: Desk) -> None:
    job_id = desk.submit(9)
    desk.render()
    desk.lose()

    class Second(Ledger):
        """While this one reads, another recovers; it has no lock, as on a file system without any."""

        def recover(self, *arguments: Any) -> None:
            Ledger(desk.url).recover(*arguments)
            before = desk.client.hgetall(redis_keys.job(job_id))
            with pytest.raises(JobError, match="this Redis holds it"):
                super().recover(*arguments)
            assert desk.client.hgetall(redis_keys.job(job_id)) == before

    desk.recover(Second(desk.url))
    assert figures(desk.ledger.status(job_id)) == (9, 5, 4, 0, 0, 0)


def test_shards_that_expired_before_the_end_are_missed(desk: Desk) -> None:
    desk.submit(9)
    desk.lose()

    class Slow(Ledger):
        def stage(self, incarnation: str, shards: Sequence[tuple[int, bytes]]) -> None:
            super().stage(incarnation, shards)
            desk.lose()

    with pytest.raises(JobError, match="have expired: run the same command again"):
        desk.recover(Slow(desk.url))
    assert desk.ledger.job_ids() == []


def test_a_frozen_attempt_of_the_lost_job_can_commit_no_more(desk: Desk) -> None:
    desk.submit(9)
    claim = desk.claim()
    attempt = desk.output.spool_folder(int(claim.shard), claim.attempt)
    (attempt / "images").mkdir(parents=True)
    desk.lose()
    desk.recover()
    assert not attempt.exists()
    assert desk.waiting("cats-1") == [1, 2, 3]
    with pytest.raises(LeaseLost):
        desk.ledger.complete(claim, [0], {})


def test_a_worker_that_still_commits_is_noticed(desk: Desk) -> None:
    desk.submit(9)
    desk.render()
    desk.lose()

    class Commits(Quiet):
        """A worker commits a shard while the manifest is read."""

        def count(self, done: int, total: int | None = None, /) -> None:
            folder = desk.output.shard_folder(1)
            folder.mkdir(exist_ok=True)
            (folder / "metadata.jsonl").touch()

    with pytest.raises(JobError, match="a worker is still writing there: run the same command again"):
        recover_job(desk.file, Settings(), desk.queue, Commits())
    assert desk.ledger.job_ids() == []


def test_a_job_over_its_bound_of_failures_is_stopped_as_it_was(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = desk.submit(9, max_failures=2)
    desk.render(failed=[0, 1])
    assert desk.ledger.status(job_id).ending == "stopped"
    desk.lose()
    done = desk.recover()
    status = desk.ledger.status(job_id)
    assert (status.state, status.ending, status.left, desk.waiting(job_id)) == ("finishing", "stopped", 5, [])
    print_recovered(done)
    assert capsys.readouterr().out == (
        "cats-1: 9 images, 2 done, 2 failed, 5 left\n"
        "cats-1 is stopped: 2 images failed or are flagged, max_failures is 2\n"
    )
    desk.finish()
    assert retry_job(job_id, desk.queue) == 7


def test_what_is_not_lost_or_was_never_there_is_refused(desk: Desk) -> None:
    desk.write(3)
    with pytest.raises(JobError, match=r"no submission of .*cats\.yaml is recorded there.*imagemill submit"):
        desk.recover()
    assert not desk.output.path.exists()
    desk.submit(3)
    with pytest.raises(JobError, match="cats-1 is not lost, this Redis holds it: `imagemill status cats-1`"):
        desk.recover()
    desk.lose()
    desk.submit(3, name="dogs")
    desk.write(3)
    with pytest.raises(JobError, match=r"dogs-1 is writing there.*then recover cats-1"):
        desk.recover()


def test_an_output_that_a_run_renders_to_is_refused(desk: Desk) -> None:
    desk.submit(3)
    desk.lose()
    with locked(desk.output), pytest.raises(JobError, match="another `imagemill run`"):
        desk.recover()
    assert desk.ledger.job_ids() == []
    desk.recover()


def test_another_manifest_is_refused_by_what_differs(desk: Desk) -> None:
    desk.submit(3)
    desk.lose()
    desk.write(4, priority=1)
    with pytest.raises(JobError) as caught:
        desk.recover()
    assert str(caught.value) == (
        f"{desk.file}: priority, prompts: not as when cats-1 was submitted: put it back to recover cats-1, "
        f"or `imagemill submit {desk.file}` renders the difference as a new job"
    )
    assert desk.client.keys("*") == []


@pytest.mark.parametrize("change", [str.upper, lambda text: f"{text}one more\n"])
def test_a_prompt_file_that_changed_is_refused_by_its_name(desk: Desk, change: Callable[[str], str]) -> None:
    prompts = desk.folder / "p.txt"
    text = "".join(f"row {n}\n" for n in range(8))
    prompts.write_text(text)
    job_id = desk.submit(1, prompts_from="p.txt")
    desk.render()
    desk.lose()
    prompts.write_text(change(text))
    with pytest.raises(JobError, match=r"p\.txt: not as when cats-1 was submitted"):
        desk.recover()
    assert desk.ledger.job_ids() == []
    prompts.write_text(text)
    assert (desk.recover().images, desk.ledger.status(job_id).done) == (9, 4)


def test_pictures_of_the_job_that_nobody_asks_for_are_refused(desk: Desk) -> None:
    desk.submit(3)
    desk.render()
    desk.lose()
    rows = desk.output.metadata_file(0)
    first, *others = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join([first.replace(json.loads(first)["image_id"], "0" * 16), *others]))
    with pytest.raises(JobError, match=r"holds 1 image of cats-1 that .*cats\.yaml does not ask for"):
        desk.recover()
    assert desk.ledger.job_ids() == []


def test_what_an_early_version_kept_of_a_submission_is_enough(desk: Desk) -> None:
    """Without what it was narrowed by, its files, and keys that were at their defaults."""
    job_id = desk.submit(9)
    desk.render()
    desk.lose()
    file = desk.output.jobs / "cats-1.json"
    kept = json.loads(file.read_bytes())
    for key in ("narrowed", "files", "mode", "on_bad_row", "image_quality"):
        del kept[key]
    file.write_text(json.dumps(kept))
    assert (desk.recover().left, desk.ledger.status(job_id).done) == (5, 4)


def test_files_whose_hashes_were_not_kept_are_refused_by_their_names(desk: Desk) -> None:
    (desk.folder / "p.txt").write_text("a cat\n")
    desk.submit(3, prompts_from="p.txt")
    desk.lose()
    file = desk.output.jobs / "cats-1.json"
    kept = json.loads(file.read_bytes())
    del kept["files"]
    file.write_text(json.dumps(kept))
    with pytest.raises(JobError, match=r"p\.txt: not as when cats-1 was submitted"):
        desk.recover()


def test_a_kept_manifest_that_is_damaged_makes_no_trouble_for_who_comes_second(desk: Desk) -> None:
    desk.submit(3)
    (desk.output.jobs / "cats-1.json").write_text("{")
    with pytest.raises(JobError, match=r"cats-1 is writing there, from another manifest"):
        desk.submit(4)


@pytest.mark.parametrize("kept", ["", "[]", '{"name": "cats"}', '{"narrowed": "--limit many"}'])
def test_a_kept_manifest_that_is_damaged_is_named(desk: Desk, kept: str) -> None:
    desk.submit(3)
    desk.lose()
    (desk.output.jobs / "cats-1.json").write_text(kept)
    with pytest.raises(OutputError, match=r"cats-1\.json: not a record of a submission"):
        desk.recover()


def test_a_job_of_before_models_had_defaults_is_put_back_with_the_settings_of_then(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"model": "shapes", "settings": {"images_per_prompt": 2}}
    with monkeypatch.context() as before:
        before.setitem(BUILT_IN, "shapes", replace(BUILT_IN["shapes"], defaults=ModelDefaults()))
        job_id = desk.submit(3, **keys)
        asked = desk.entries(job_id)
    assert {entry.size for entry in asked.values()} == {(512, 512)}
    desk.render()
    desk.lose()
    assert (desk.recover().done, desk.entries(job_id)) == (4, asked)
    # A new submission asks for the model's own, which are other images.
    prepared = prepare(desk.file, Settings())
    sizes = {entry.size for _image_id, entry in prepared.entries()}
    assert (sizes, prepared.pinned.to_json()["settings"]["num_inference_steps"]) == ({(64, 64)}, 20)
    assert prepared.remark == (
        "the model's own settings differ from those of cats-1: height = 64 (was 512), width = 64 (was 512),"
        " num_inference_steps = 20 (was 50), guidance_scale = 3.0 (was 7.5), scheduler = DDIM (was LMS); give"
        " the former ones in `settings` to keep its pictures"
    )
    swept = {
        "settings": {"height": 512, "width": 512, "guidance_scale": 7.5},
        "sweep": {"scheduler": ["LMS"]},
    }
    desk.write(3, **keys | swept)
    assert "num_inference_steps = 20 (was 50); give" in prepare(desk.file, Settings()).remark
    assert "scheduler" not in prepare(desk.file, Settings()).remark
    desk.write(3, **keys | {"settings": {"images_per_prompt": 2, "height": 64}})
    desk.lose()
    with pytest.raises(JobError, match="settings: not as when cats-1 was submitted"):
        desk.recover()
