"""What cannot be put back as it was is refused, and the message says why."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from jobs.errors import JobError, OutputError
from jobs.output.output_lock import locked
from tests.producer.submit.recover.desk import Desk


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
