"""Input pictures lie in the output once, by their hash, or stay where they are; none is another one."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest
from PIL import Image

from jobs.errors import JobError, ManifestError, OutputError
from jobs.inputs.inputs import KeptInputs, kept_path
from jobs.ledger.shard import Shard, decode_shard
from jobs.output.metadata import Failure, metadata_record
from jobs.output.store import Stage
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.requests.prepared import prepare
from producer.submit.recover import recover_job
from producer.submit.retry import retry_job
from producer.submit.submit import packed_for, store, submit_manifest
from tests.producer.submit.desk import Desk
from tests.reported import Reported


def picture(desk: Desk, name: str, colour: str = "red", side: int = 64) -> str:
    """Saves a picture beside the manifest; the SHA-256 of its file."""
    file = desk.folder / name
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (side, side), colour).save(file)
    return sha256(file.read_bytes()).hexdigest()


def lines(*names: str) -> list[object]:
    """A prompt with each picture."""
    return [{"prompt": f"picture {number}", "image": name} for number, name in enumerate(names)]


def kept(desk: Desk) -> set[str]:
    """The hashes of what the output keeps; each file is whole."""
    files = [file for file in desk.output.inputs.rglob("*") if file.is_file()]
    for file in files:
        assert sha256(file.read_bytes()).hexdigest() == file.name
        assert file == kept_path(desk.output.inputs, file.name)
    return {file.name for file in files}


def shards(desk: Desk, job_id: str = "cats-1") -> list[Shard]:
    """The job's shards as workers read them."""
    spec = desk.ledger.spec(job_id)
    base = ImageRequest.from_mapping(spec.base)
    return [decode_shard(blob, base, spec.name) for blob in desk.ledger.shard_blobs(job_id)]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """While it lasts, the system writes no file of more bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_each_picture_is_kept_once_and_workers_find_it_by_the_requests_hash(desk: Desk) -> None:
    red, blue = picture(desk, "red.png"), picture(desk, "blue.png", "blue")
    picture(desk, "again.png")
    desk.submit([*lines("red.png", "blue.png", "again.png"), "none"])
    assert kept(desk) == {red, blue}
    stored = desk.stored("cats-1")
    assert [stored[n].request.image for n in range(4)] == [red, blue, red, None]
    assert all(shard.inputs == {} for shard in shards(desk))
    assert KeptInputs(desk.output.inputs).contents(blue) == (desk.folder / "blue.png").read_bytes()


def test_only_pictures_of_images_to_be_rendered_are_kept(desk: Desk) -> None:
    hashes = [picture(desk, f"{n}.png", colour) for n, colour in enumerate(("red", "lime", "blue"))]
    every = lines("0.png", "1.png", "2.png")
    desk.submit(every, limit=1)
    assert kept(desk) == {hashes[0]}
    desk.client.flushall()
    desk.put_in_output(0, [desk.asked()[1]])
    desk.submit(every)
    assert kept(desk) == {hashes[0], hashes[2]}


def test_referenced_pictures_stay_where_they_are_and_shards_say_where(desk: Desk) -> None:
    red, blue = picture(desk, "red.png"), picture(desk, "blue.png", "blue")
    desk.submit([*lines("red.png", "blue.png"), "none", "none too"], inputs="reference")
    assert kept(desk) == set()
    paths = {red: str(desk.folder / "red.png"), blue: str(desk.folder / "blue.png")}
    assert [shard.inputs for shard in shards(desk)] == [paths, {}]
    [first, _] = shards(desk)
    inputs = KeptInputs(desk.output.inputs, first.inputs)
    assert inputs.contents(red) == (desk.folder / "red.png").read_bytes()


def test_the_output_tells_of_no_folder_of_the_pictures(desk: Desk) -> None:
    picture(desk, "photos/red.png")
    for inputs in ("copy", "reference"):
        desk.submit(lines(str(desk.folder / "photos" / "red.png")), inputs=inputs, name=inputs[:4])
        desk.client.flushall()
    for file in desk.output.path.rglob("*.json"):
        text = file.read_text()
        assert "photos/red.png" in text or file.name == "shards.json"
        assert str(desk.folder) not in text


def test_a_picture_that_changed_since_it_was_hashed_is_not_kept(desk: Desk) -> None:
    picture(desk, "red.png")
    prepared = prepare(desk.write(lines("red.png")), Settings())
    with packed_for(prepared, desk.ledger) as packed:
        picture(desk, "red.png", "blue")
        with pytest.raises(ManifestError, match=r"red\.png: changed after it was checked: submit again"):
            store(packed, desk.queue)
    assert kept(desk) == set()
    assert desk.ledger.job_ids() == []
    assert submit_manifest(prepare(desk.folder / "cats.yaml", Settings()), desk.queue).images == 1


def test_a_full_disk_is_one_message_and_the_same_command_continues(desk: Desk) -> None:
    small = picture(desk, "red.png")
    large = picture(desk, "large.bmp", "blue", side=1024)
    prompts = lines("red.png", "large.bmp")
    with no_file_above(1 << 20), pytest.raises(OutputError) as full:
        desk.submit(prompts)
    assert str(full.value).startswith(f"output {desk.output.path}: cannot be written (File too large")
    assert str(full.value).endswith("run the same command to continue")
    assert kept(desk) <= {small}
    assert desk.ledger.job_ids() == []
    assert desk.submit(prompts).images == 2
    assert kept(desk) == {small, large}


def test_a_resumed_submission_copies_nothing_again(desk: Desk) -> None:
    red = picture(desk, "red.png")
    desk.submit(lines("red.png"))
    file = kept_path(desk.output.inputs, red)
    before = file.stat()
    again = desk.submit(lines("red.png"))
    assert again.attached
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_picture_under_the_same_name_is_not_the_same_submission(desk: Desk) -> None:
    picture(desk, "red.png")
    desk.submit(lines("red.png", "red.png"))
    picture(desk, "red.png", "blue")
    with pytest.raises(JobError, match="pictures of lines: not as it was when cats-1 was begun"):
        desk.submit(lines("red.png", "red.png"))


@pytest.mark.parametrize("inputs", ["copy", "reference"])
def test_a_retry_finds_its_pictures(desk: Desk, inputs: str) -> None:
    hashes = [picture(desk, f"{n}.png", colour) for n, colour in enumerate(("red", "lime", "blue"))]
    desk.submit(lines("0.png", "1.png", "2.png"), inputs=inputs)
    while desk.ledger.status("cats-1").left:
        desk.render(failed=[1])
    desk.finish()
    assert retry_job("cats-1", desk.queue) == 1
    spec = desk.ledger.spec("cats-1")
    claim = desk.claim()
    again = decode_shard(claim.blob, ImageRequest.from_mapping(spec.base), spec.name)
    assert [entry.request.image for entry in again.entries] == [hashes[1]]
    found = KeptInputs(desk.output.inputs, again.inputs).contents(hashes[1])
    assert found == (desk.folder / "1.png").read_bytes()


@pytest.mark.parametrize("inputs", ["copy", "reference"])
def test_a_recovered_job_finds_its_pictures_and_a_changed_one_is_refused(desk: Desk, inputs: str) -> None:
    red = picture(desk, "red.png")
    file = desk.write(lines("red.png"), inputs=inputs)
    desk.submit(lines("red.png"), inputs=inputs)
    desk.client.flushall()
    for kept_file in desk.output.inputs.rglob("*"):
        if kept_file.is_file():
            kept_file.unlink()
    picture(desk, "red.png", "blue")
    with pytest.raises(JobError, match="pictures of lines: not as when cats-1 was submitted"):
        recover_job(file, Settings(), desk.queue)
    picture(desk, "red.png")
    assert recover_job(file, Settings(), desk.queue).left == 1
    [shard] = shards(desk)
    assert KeptInputs(desk.output.inputs, shard.inputs).contents(red)
    assert bool(shard.inputs) is (inputs == "reference")


def commit_with_failure(desk: Desk, failed: int) -> None:
    """Commits the next shard as a worker does, with the image of this index as a failure."""
    claim = desk.claim()
    [shard] = [one for one in shards(desk) if failed in one.indices]
    rows, failures = [], []
    images = desk.output.spool_folder(int(claim.shard), claim.attempt) / "images"
    images.mkdir(parents=True)
    for position, (index, entry) in enumerate(zip(shard.indices, shard.entries, strict=True)):
        if index == failed:
            about = {"reason": "black", "job_id": claim.job_id, "command": ""}
            failures.append(Failure(shard=int(claim.shard), position=position, entry=entry, **about))
            continue
        name = f"{desk.output.names.key(int(claim.shard), position)}.png"
        (images / name).write_bytes(b"a picture")
        names: dict[str, Any] = {"file_name": name, "sha256": "", "job_id": claim.job_id, "flagged": None}
        rows.append(metadata_record(entry, **names, rendered={}, column_names=()))
    stage = Stage(images.parent, "x", lambda: None)
    desk.output.stored(int(claim.shard), "files").commit(images, rows, failures, stage)


@pytest.mark.parametrize("inputs", ["copy", "reference"])
def test_a_retry_of_a_recovered_job_finds_its_pictures(desk: Desk, inputs: str) -> None:
    hashes = [picture(desk, f"{n}.png", colour) for n, colour in enumerate(("red", "lime"))]
    desk.submit(lines("0.png", "1.png"), inputs=inputs)
    commit_with_failure(desk, 1)
    desk.client.flushall()
    for kept_file in [one for one in desk.output.inputs.rglob("*") if one.is_file()]:
        kept_file.unlink()
    recovered = recover_job(desk.folder / "cats.yaml", Settings(), desk.queue)
    assert (recovered.done, recovered.failed, recovered.left) == (1, 1, 0)
    desk.finish()
    assert retry_job("cats-1", desk.queue) == 1
    again = shards(desk)[-1]
    assert [entry.request.image for entry in again.entries] == [hashes[1]]
    found = KeptInputs(desk.output.inputs, again.inputs).contents(hashes[1])
    assert found == (desk.folder / "1.png").read_bytes()


def test_progress_is_told_of_many_pictures(desk: Desk) -> None:
    for number in range(3):
        picture(desk, f"{number}.bmp", f"#0000{number:02}", side=4096)
    reporter = Reported()
    prepared = prepare(desk.write(lines("0.bmp", "1.bmp", "2.bmp")), Settings())
    submit_manifest(prepared, desk.queue, reporter)
    assert reporter.lines == [f"keeping 3 pictures and adapters, 151 MB, in {desk.output.inputs}"]
