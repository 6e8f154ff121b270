"""Images that were asked for and are not there: which, and when there is no telling."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from jobs.inputs.latents import latents_sha256
from jobs.output.job_files import JobFiles
from jobs.output.output import Output
from producer.doctor.checkup import Checkup, check_output

Rendered = Callable[..., Output]


def problems_of(output: Output) -> list[tuple[str, str, str]]:
    """Kind, place and words of every problem."""
    return [(problem.kind, problem.place, problem.what) for problem in check_output(output).problems]


def records(output: Output, shard: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.metadata_file(shard).read_text().splitlines()]


def submit_again(output: Output, number: int, **changes: object) -> dict[str, object]:
    """Keeps the manifest's next submission, changed; returns it."""
    manifest = json.loads((output.jobs / "foxes-1.json").read_text()) | changes
    JobFiles(output, f"foxes-{number}").write_manifest(manifest)
    return manifest


def test_a_missing_shard_is_reported_by_what_the_manifest_lacks(rendered: Rendered) -> None:
    output = rendered(12)
    lost = [f"{record['image_id']} {record['text']!r}" for record in records(output, 1)]
    shutil.rmtree(output.shard_folder(1))
    checkup = check_output(output)
    (problem,) = [problem for problem in checkup.problems if problem.kind == "missing"]
    assert problem.place == ".imagemill/jobs/foxes-1.json"
    assert problem.what == f"4 of 12 images are not there: {', '.join(lost[:3])}, …"
    assert "`imagemill retry foxes-1`" in problem.remedy
    assert checkup.missing == {"foxes-1": 4}


def test_the_newest_submission_of_a_manifest_counts(rendered: Rendered) -> None:
    output = rendered(4)
    prompts = [f"fox {n}, été 🦊" for n in range(4)]
    submit_again(output, 9, prompts=prompts[:3])
    assert problems_of(output) == []
    submit_again(output, 10, prompts=[*prompts, "a hare"])
    ((kind, place, what),) = problems_of(output)
    assert (kind, place) == ("missing", ".imagemill/jobs/foxes-10.json")
    assert "1 of 5 images are not there" in what
    assert "'a hare'" in what


def test_an_output_of_before_models_had_defaults_lacks_nothing(rendered: Rendered) -> None:
    """Then Stable Diffusion's were written out, whatever the model; `shapes` has others of its own now."""
    open_then = {
        "height": 64,
        "width": 64,
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "scheduler": "LMS",
    }
    output = rendered(4, settings=open_then)
    assert check_output(output).missing == {}
    manifest = submit_again(output, 2, prompts=[f"fox {n}, été 🦊" for n in range(5)])
    assert manifest["settings"].items() >= open_then.items()  # type: ignore[attr-defined]
    assert check_output(output).missing == {"foxes-2": 1}


def test_manifests_of_every_name_count(rendered: Rendered) -> None:
    output = rendered(4)
    hares = json.loads((output.jobs / "foxes-1.json").read_text()) | {"name": "hares"}
    JobFiles(output, "hares-1").write_manifest(hares | {"prompts": ["a hare"]})
    assert [place for _kind, place, _what in problems_of(output)] == [".imagemill/jobs/hares-1.json"]


@pytest.mark.parametrize(("option", "missing"), [("--limit 6", 2), ("--sample 6", 6), ("", 40)])
def test_a_narrowed_submission_asks_for_no_more(rendered: Rendered, option: str, missing: int) -> None:
    output = rendered(4)
    more = [f"fox {n}, été 🦊" for n in range(4)] + [f"hare {n}" for n in range(40)]
    submit_again(output, 2, prompts=more, narrowed=option)
    assert check_output(output).missing == {"foxes-2": missing}


def test_job_json_serves_where_no_manifest_is_kept(rendered: Rendered) -> None:
    output = rendered(8)
    shutil.rmtree(output.private)
    shutil.rmtree(output.shard_folder(0))
    assert check_output(output).missing == {"foxes-1": 4}
    lost, (kind, place, what) = problems_of(output)
    assert (lost[0], kind, place) == ("lost", "missing", "job.json")
    assert what.startswith("4 of 8 images are not there")
    (output.path / "job.json").unlink()
    checkup = check_output(output)
    assert checkup.problems == []
    assert checkup.notes == [
        "job.json: not there: no job has finished here",
        "no manifest is kept in .imagemill/jobs: what is missing cannot be known",
    ]


def test_initial_latents_are_compared_and_reported_when_they_are_gone(rendered: Rendered, tmp_path) -> None:
    output = rendered(4)
    file = tmp_path / "latents.npy"
    np.save(file, np.zeros((4, 8, 8), np.float32))
    submit_again(output, 2, prompts=[{"prompt": "a hare", "init_latents": str(file)}])
    assert check_output(output).missing == {"foxes-2": 1}
    file.unlink()
    checkup = check_output(output)
    assert checkup.missing == {}
    (note,) = checkup.notes
    assert note.startswith(".imagemill/jobs/foxes-2.json: cannot be compared with the output: ")
    assert str(file) in note


@pytest.mark.parametrize("option", ["--limit -1", "--sample x", f"--limit {10**30}", "--first 2", 7, None])
def test_a_narrowing_that_nobody_gave_is_named(rendered: Rendered, option: object) -> None:
    output = rendered(4)
    file = output.jobs / "foxes-1.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"narrowed": option}))
    (problem,) = check_output(output).problems
    assert (problem.kind, problem.file) == ("report", ".imagemill/jobs/foxes-1.json")


@pytest.mark.parametrize("file", ["gone.jsonl", "a" * 300 + ".txt", "/etc/hostname"])
def test_prompt_files_that_are_gone_or_none_keep_the_rest_from_being_compared(
    rendered: Rendered, file: str
) -> None:
    output = rendered(4)
    kept = output.jobs / "foxes-1.json"
    kept.write_text(json.dumps(json.loads(kept.read_bytes()) | {"prompts_from": [file]}))
    checkup = check_output(output)
    assert checkup.problems == []
    known = Path(file).is_absolute()
    what = (
        "cannot be compared with the output: " if known else "run `imagemill doctor` in the manifest's folder"
    )
    assert [note for note in checkup.notes if what in note or "File name too long" in note]


class Asked:
    """Foxes of a prompt file, submitted as foxes-2 and all rendered; the file's hash is kept."""

    def __init__(self, rendered: Rendered, folder: Path) -> None:
        self.output = rendered(4)
        self.file = folder / "prompts.txt"
        self.file.write_text("".join(f"fox {n}, été 🦊\n" for n in range(4)))
        self.submit()

    def submit(self, *files: Path, source: str | None = None, **keys: object) -> None:
        """Keeps foxes-2, which was read from these files as they are now."""
        manifest = json.loads((self.output.jobs / "foxes-1.json").read_text())
        manifest |= {"prompts_from": [{"file": str(self.file) if source is None else source}]}
        hashes = {str(file): sha256(file) for file in files or (self.file,)}
        del manifest["prompts"]
        JobFiles(self.output, "foxes-2").write_manifest(manifest | {"narrowed": "", "files": hashes} | keys)

    def examine(self) -> Checkup:
        return check_output(self.output)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def asked(rendered: Rendered, tmp_path: Path) -> Asked:
    return Asked(rendered, tmp_path)


def not_compared(*changes: str) -> list[str]:
    return [
        ".imagemill/jobs/foxes-2.json: what is missing cannot be known: since foxes-2 was submitted, "
        f"{', '.join(changes)}; `imagemill submit FILE` renders the difference (`imagemill plan FILE` shows "
        "it)"
    ]


def test_a_prompt_file_as_it_was_is_compared(asked: Asked) -> None:
    assert (asked.examine().problems, asked.examine().notes) == ([], [])
    asked.file.write_text("a hare\n")
    asked.submit()
    assert asked.examine().missing == {"foxes-2": 1}


def test_rows_whose_guidance_of_0_was_read_as_1_lack_nothing(rendered: Rendered, tmp_path: Path) -> None:
    """The model's class decides how 0 is read, and an output does not keep it."""
    settings = {"height": 64, "width": 64, "guidance_scale": 1}
    asked = Asked(partial(rendered, settings=settings), tmp_path)
    asked.file = asked.file.with_suffix(".csv")
    rows = ["prompt,guidance_scale", *(f'"fox {n}, été 🦊",0' for n in range(4))]
    asked.file.write_text("\n".join(rows))
    asked.submit()
    assert (asked.examine().problems, asked.examine().notes) == ([], [])
    asked.file.write_text("\n".join([*rows, "a hare,0"]))
    asked.submit()
    assert asked.examine().missing == {"foxes-2": 1}


def test_records_that_came_after_the_submission_are_not_missing(asked: Asked) -> None:
    with asked.file.open("a") as file:
        file.write("a hare\n")
    checkup = asked.examine()
    assert (checkup.problems, checkup.missing) == ([], {})
    assert checkup.notes == not_compared(f"{asked.file} changed")
    asked.submit()
    assert asked.examine().missing == {"foxes-2": 1}


def test_a_changed_file_that_cannot_even_be_read_is_reported_by_its_name(asked: Asked) -> None:
    asked.file.write_bytes(b"\xff\xfe\n")
    assert asked.examine().notes == not_compared(f"{asked.file} changed")


@pytest.mark.parametrize("stands", [None, "folder", "pipe"])
def test_a_prompt_file_that_is_gone_is_reported_by_its_name(asked: Asked, stands: str | None) -> None:
    asked.file.unlink()
    how = "is gone"
    if stands is not None:
        (asked.file.mkdir if stands == "folder" else lambda: os.mkfifo(asked.file))()
        how = "cannot be read any more (not a plain file)"
    checkup = asked.examine()
    assert (checkup.problems, checkup.notes) == ([], not_compared(f"{asked.file} {how}"))


def test_a_file_that_came_to_a_pattern_is_reported_by_its_name(asked: Asked, tmp_path: Path) -> None:
    asked.submit(source=str(tmp_path / "*.txt"))
    assert asked.examine().notes == []
    new = tmp_path / "a_new_one.txt"
    new.write_text("a hare\n")
    checkup = asked.examine()
    assert (checkup.problems, checkup.notes) == ([], not_compared(f"{new} came"))


def test_a_file_that_a_limit_left_out_may_change(asked: Asked, tmp_path: Path) -> None:
    more = tmp_path / "z.txt"
    more.write_text("a hare\n")
    asked.submit(asked.file, source=str(tmp_path / "*.txt"), narrowed="--limit 4")
    more.write_text("two hares\n")
    assert (asked.examine().problems, asked.examine().notes) == ([], [])


def test_of_many_changed_files_some_are_named(asked: Asked, tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.txt" for n in range(5)]
    for file in files:
        file.write_text("a hare\n")
    asked.submit(*files, source=str(tmp_path / "[0-9].txt"))
    for file in files:
        file.unlink()
    assert asked.examine().notes == not_compared(*(f"{file} is gone" for file in files[:3]), "…")


def test_initial_latents_that_changed_are_reported_by_their_name(rendered: Rendered, tmp_path: Path) -> None:
    output = rendered(4)
    file, latents = tmp_path / "latents.npy", np.zeros((4, 8, 8), np.float32)
    np.save(file, latents)
    prompts = [{"prompt": "a hare", "init_latents": str(file)}]
    submit_again(output, 2, prompts=prompts, files={str(file): latents_sha256(latents)})
    assert check_output(output).missing == {"foxes-2": 1}
    np.save(file, latents.astype(np.float64))  # the same latents in other bytes
    assert check_output(output).missing == {"foxes-2": 1}
    for contents, how in ((latents + 1, "changed"), (np.zeros(3), "changed"), (None, "is gone")):
        if contents is None:
            file.unlink()
        else:
            np.save(file, contents)
        checkup = check_output(output)
        assert (checkup.problems, checkup.notes) == ([], not_compared(f"{file} {how}"))


@pytest.mark.parametrize("files", [[], "p.txt", {"p.txt": 7}, {"p.txt": None}])
def test_hashes_that_nobody_keeps_are_named(rendered: Rendered, files: object) -> None:
    output = rendered(4)
    submit_again(output, 2, files=files)
    ((kind, place, what),) = problems_of(output)
    assert (kind, place) == ("report", ".imagemill/jobs/foxes-2.json")
    assert what == "is not a manifest as it was submitted (files: not a mapping of files to their SHA-256)"
