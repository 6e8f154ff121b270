"""Images that were painted from pictures are compared with what the pictures hold now, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

from jobs.adapters import NONE
from jobs.entry import Entry
from jobs.output.lines import line_key
from jobs.output.output import Output
from jobs.settings import Settings
from producer.doctor.checkup import check_output
from producer.doctor.missing_images import There, missing_images
from producer.requests.prepared import prepare
from producer.submit.submit import submit_manifest
from tests.producer.submit.desk import Desk

EXAMPLES = Path(str(resources.files("jobs.examples")))


@pytest.fixture
def desk(redis_server, tmp_path: Path) -> Desk:  # type: ignore[no-untyped-def]
    return Desk(redis_server.url, tmp_path)


def submitted(desk: Desk) -> Output:
    """The output of a submission whose rows name pictures relative to the manifest; nothing is rendered."""
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(desk.folder / f"{colour}.png")
    (desk.folder / "rows.csv").write_text("prompt,image\na,red.png\nb,blue.png\nc,\n")
    file = desk.write(1, prompts_from="rows.csv")
    submit_manifest(prepare(file, Settings()), desk.queue)
    return desk.output


def there(entries: list[Entry]) -> There:
    """An output that has these."""
    keyed = [(entry.request.image_id, entry) for entry in entries]
    keys = {line_key(image_id, entry.id, entry.columns) for image_id, entry in keyed}
    return There({image_id for image_id, _ in keyed}, (), keys)


def test_images_with_a_strength_that_was_left_open_are_asked_for_as_they_were(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = submitted(desk)
    stored = desk.stored("cats-1")
    assert stored[1].request.strength == 0.8
    # From any folder: what rows name is relative to the manifest's.
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    found = missing_images(output, there(list(stored.values())))
    assert (found.images, found.notes) == ({}, [])


def test_images_that_are_not_there_are_named(desk: Desk) -> None:
    output = submitted(desk)
    found = missing_images(output, there(list(desk.stored("cats-1").values())[:3]))
    assert found.images == {"cats-1": 1}


def test_images_that_a_controlnet_leads_are_asked_for_with_its_revision_and_scale(desk: Desk) -> None:
    Image.new("RGB", (64, 64), "red").save(desk.folder / "red.png")
    prompts = [{"prompt": prompt, "control_image": "red.png"} for prompt in "ab"] + [{"prompt": "c"}]
    edges = {"model": str(EXAMPLES / "controlnets" / "edges"), "scale": 0.7}
    submit_manifest(prepare(desk.write(prompts, controlnet=[edges]), Settings()), desk.queue)
    entries = list(desk.stored("cats-1").values())
    assert [entry.request.controlnet == NONE for entry in entries] == [False, False, True]
    assert missing_images(desk.output, there(entries)).images == {}
    assert missing_images(desk.output, there(entries[1:])).images == {"cats-1": 1}


def changed(picture: Path) -> None:
    Image.new("RGB", (64, 64), "lime").save(picture)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed, "since cats-1 was submitted, pictures of lines changed"),
        (Path.unlink, "red.png: there is no such file"),
    ],
)
def test_pictures_that_are_not_as_they_were_leave_open_what_is_missing(
    desk: Desk, change: Callable[[Path], None], said: str
) -> None:
    output = submitted(desk)
    change(desk.folder / "red.png")
    checkup = check_output(output)
    assert checkup.missing == {}
    assert said in "\n".join(checkup.notes)


def test_an_output_that_was_moved_says_that_the_pictures_are_not_known(desk: Desk, tmp_path: Path) -> None:
    output = submitted(desk)
    moved = tmp_path / "moved" / "out"
    shutil.copytree(output.path, moved)
    checkup = check_output(Output(moved))
    assert checkup.missing == {}
    assert any("cannot be" in note for note in checkup.notes)


KEPT = "Striped.safetensors"


def submitted_with_a_lora(desk: Desk) -> list[Entry]:
    """Submits a line, and a row that names a LoRA and a picture relative to the manifest."""
    shutil.copy(EXAMPLES / "loras" / "striped.safetensors", desk.folder / KEPT)
    (desk.folder / "photos").mkdir()
    Image.new("RGB", (64, 64), "red").save(desk.folder / "photos" / "a.png")
    row = {"prompt": "a", "image": "photos/a.png", "loras": [{"file": KEPT}]}
    (desk.folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    submit_manifest(prepare(desk.write(1, prompts_from="rows.jsonl"), Settings()), desk.queue)
    return list(desk.stored("cats-1").values())


def moved(desk: Desk) -> Output:
    """The output in another place, of which nothing is remembered here."""
    elsewhere = desk.folder / "moved" / "out"
    shutil.copytree(desk.output.path, elsewhere)
    return Output(elsewhere)


def test_an_output_from_elsewhere_is_compared_in_the_manifests_folder_with_all_that_rows_name(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = submitted_with_a_lora(desk)
    monkeypatch.chdir(desk.folder)
    found = missing_images(moved(desk), there(entries))
    assert (found.images, found.notes) == ({}, [])


@pytest.mark.parametrize("picture", ["photos/{id}.png", "photos/{id}.*", "photos/a.png"])
def test_pictures_that_are_not_where_doctor_runs_are_said_to_be_elsewhere(
    desk: Desk, picture: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (desk.folder / "photos").mkdir()
    Image.new("RGB", (64, 64), "red").save(desk.folder / "photos" / "a.png")
    prompt = {"prompt": "a", "id": "a", "image": picture}
    submit_manifest(prepare(desk.write([prompt]), Settings()), desk.queue)
    output = moved(desk)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    found = missing_images(output, there([]))
    assert found.images == {}
    assert "cannot be known here" in found.notes[0]
    assert "run `imagemill doctor` in the manifest's folder" in found.notes[0]
    monkeypatch.chdir(desk.folder)
    assert missing_images(output, there([])).images == {"cats-1": 1}
