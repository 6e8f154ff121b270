"""A job that Redis lost is put back as it was, from its manifest and its output."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from jobs.errors import JobError
from jobs.ledger import redis_keys
from jobs.models.models import BUILT_IN, ModelDefaults
from jobs.output.metadata import metadata_record
from jobs.output.store import Stage
from jobs.output.stored_shard import LayoutName
from jobs.settings import Settings
from producer.requests.prepared import prepare
from producer.submit.recover import Recovered
from producer.submit.report import print_recovered
from producer.submit.retry import retry_job
from producer.submit.submit import submit_manifest
from tests.producer.submit.recover.desk import Desk, figures


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
