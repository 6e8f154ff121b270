"""`imagemill doctor` as it is called: what it prints, how it exits, and when it refuses to repair."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import click.testing
import pytest

from jobs.errors import Interrupted, JobError, LedgerError
from jobs.ledger.job import Addition, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import decode_shard
from jobs.models.models import BUILT_IN
from jobs.output.job_files import JobFiles
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.output_lock import locked
from jobs.output.stored_shard import LayoutName
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer import cli
from producer.doctor import doctor
from producer.embedded_redis import EmbeddedRedis
from producer.job_queue import JobQueue
from producer.manifest.manifest import Manifest
from producer.requests.prepared import prepare
from producer.submit.submit import submit_manifest
from tests.expanded import expand
from tests.stand_ins import drawn
from worker.engine.renderer import RenderedBy
from worker.shard.store import ShardStore

Call = Callable[..., click.testing.Result]
ENDING = "`--repair` sets it aside, then submit the manifest again"


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Three foxes, rendered."""
    output = Output((tmp_path / "out").resolve())
    output.prepare()
    given = {
        "name": "foxes", "model": "instant", "revision": "instant-1", "output": str(output.path),
        "settings": {"height": 64, "width": 64}, "prompts": ["a fox", "two foxes", "three foxes"],
    }  # fmt: skip
    manifest = Manifest.from_json(given)
    JobFiles(output, "foxes-1").write_manifest(manifest.to_json())
    entries = list(expand(manifest, BUILT_IN["instant"]))
    store = ShardStore(output, 0, "1-a", entries, job_id="foxes-1", column_names=(), adopt_below=0)
    rendered_by = RenderedBy(precision="fp32", rows=16, device="cpu", versions={})
    for position, entry in enumerate(entries):
        store.save(position, drawn(entry.request), rendered_by)
    assert store.commit([])
    (output.path / "job.json").write_text('{"job_id": "foxes-1", "output": {"images": 3, "shards": 1}}')
    return output


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Runs `imagemill doctor ARGUMENTS` in this process, with no Redis to be found; an error is raised."""
    monkeypatch.delenv("IMAGEMILL_REDIS_URL", raising=False)
    monkeypatch.setenv("IMAGEMILL_RUNTIME_DIR", str(tmp_path / "runtime"))

    def run(*arguments: object) -> click.testing.Result:
        words = ["doctor", *(str(argument) for argument in arguments)]
        result = click.testing.CliRunner().invoke(cli.command, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_a_sound_output_is_one_line_and_0(call: Call, output: Output, monkeypatch) -> None:
    monkeypatch.chdir(output.path.parent)
    done = call("out")
    assert (done.exit_code, done.stdout) == (0, f"{output.path}: 3 images in 1 shard: nothing is wrong\n")


def test_every_problem_is_a_line_with_its_remedy_and_1(call: Call, output: Output) -> None:
    image_id = json.loads(output.metadata_file(0).read_text().splitlines()[1])["image_id"]
    (output.shard_folder(0) / "000000001.png").unlink()
    (output.shard_folder(0) / "cat.jpg").touch()
    done = call(output.path)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"00000/000000001.png: is missing: line 2 of metadata.jsonl names it; {ENDING}",
        "00000/cat.jpg: does not belong to the shard; `--repair` sets it aside",
        f".imagemill/jobs/foxes-1.json: 1 of 3 images are not there: {image_id} 'two foxes'; "
        "if its job has ended, submit it again, or `imagemill retry foxes-1`",
        f"{output.path}: 2 images in 1 shard: 3 problems",
    ]


def test_json_is_one_object_and_nothing_else(call: Call, output: Output) -> None:
    (output.shard_folder(0) / "000000001.png").unlink()
    done = call(output.path, "--json")
    assert (done.exit_code, done.stderr) == (1, "")
    result = json.loads(done.stdout)
    problems, notes = result.pop("problems"), result.pop("notes")
    assert result == {
        "output": str(output.path), "images": 2, "shards": 1, "failed": 0, "missing": {"foxes-1": 1},
        "set_aside": [], "quarantine": None, "sent_back": {},
    }  # fmt: skip
    assert notes == []
    assert [problem["kind"] for problem in problems] == ["picture", "missing"]
    assert set(problems[0]) == {"kind", "file", "line", "what", "remedy", "image_id"}


def test_a_repair_shows_what_it_did_and_what_is_left(call: Call, output: Output) -> None:
    (output.shard_folder(0) / "000000001.png").write_bytes(b"")
    (output.shard_folder(0) / "cat.jpg").touch()
    done = call(output.path, "--repair")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "00000/000000001.png: is empty; set aside",
        "00000/cat.jpg: does not belong to the shard; set aside",
        f"2 problems set aside in {output.private}/quarantine/1",
    ]
    assert lines[4].startswith(".imagemill/jobs/foxes-1.json: 1 of 3 images are not there: ")
    assert lines[-1] == f"{output.path}: 2 images in 1 shard: 1 problem"
    again = json.loads(call(output.path, "--repair", "--json").stdout)
    assert (again["set_aside"], again["quarantine"], len(again["problems"])) == ([], None, 1)


def test_a_repair_that_leaves_nothing_wrong_exits_with_0(call: Call, output: Output) -> None:
    (output.shard_folder(0) / "cat.jpg").touch()
    done = call(output.path, "--repair", "--json")
    result = json.loads(done.stdout)
    assert (done.exit_code, result["problems"]) == (0, [])
    assert [problem["file"] for problem in result["set_aside"]] == ["00000/cat.jpg"]
    assert result["quarantine"] == str(output.private / "quarantine" / "1")


def test_what_is_no_output_is_bad_input(call: Call, tmp_path: Path) -> None:
    assert call(tmp_path / "none").exit_code == 2
    (tmp_path / "file").touch()
    assert call(tmp_path / "file").exit_code == 2


def test_a_repair_is_refused_while_a_run_holds_the_output(call: Call, output: Output) -> None:
    (output.shard_folder(0) / "cat.jpg").touch()
    with locked(output):
        with pytest.raises(JobError, match="another `imagemill run`"):
            call(output.path, "--repair")
        assert call(output.path).exit_code == 1
    assert (output.shard_folder(0) / "cat.jpg").exists()
    assert call(output.path, "--repair").exit_code == 0


def test_a_repair_is_refused_while_the_ledger_has_an_unfinished_job_there(
    call: Call, output: Output, redis_server: EmbeddedRedis, job_spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", redis_server.url)
    (output.shard_folder(0) / "cat.jpg").touch()
    ledger = Ledger(redis_server.url)
    ledger.create(job_spec(output="/elsewhere"), "digest", 1)
    job_id, _created = ledger.create(job_spec(output=str(output.path)), "digest", 1)
    with pytest.raises(JobError, match=f"{job_id} is writing there"):
        call(output.path, "--repair")
    assert (output.shard_folder(0) / "cat.jpg").exists()
    ledger.add(job_id, ledger.incarnation(job_id), Addition(cursor=0, new_cursor=0, seal=True, shards=[]))
    claim = ledger.claim("w1", WorkerState(idle_ms=9000), lease=30)
    assert claim is not None and claim.kind == "finish"
    ledger.finish(claim)
    assert call(output.path, "--repair").exit_code == 0


def test_a_repair_is_refused_while_redis_cannot_tell(
    call: Call, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", "redis://127.0.0.1:1/0")
    (output.shard_folder(0) / "cat.jpg").touch()
    with pytest.raises(LedgerError):
        call(output.path, "--repair")
    assert call(output.path).exit_code == 1


def test_ctrl_c_is_one_message(call: Call, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "check_output", interrupted)
    with pytest.raises(Interrupted, match="stopped before the end"):
        call(output.path)


class Desk:
    """Foxes submitted to a Redis that the doctor finds, and a played worker."""

    def __init__(self, url: str, folder: Path, layout: LayoutName) -> None:
        self.url, self.folder, self.layout = url, folder, layout
        self.ledger = Ledger(url)
        self.output = Output((folder / "out").resolve())

    def submit(self, prompts: Sequence[str], name: str = "foxes", **keys: object) -> str:
        given = {
            "name": name, "model": "instant", "output": str(self.output.path), "layout": self.layout,
            "shard_size": 4, "settings": {"height": 64, "width": 64}, "prompts": list(prompts),
        } | keys  # fmt: skip
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps(given))
        return submit_manifest(prepare(file, Settings()), JobQueue.at(self.url)).job_id

    def render(self, shards: int = 99) -> int:
        """Renders what waits and finishes jobs; what is called `!` fails. Returns how many pictures."""
        pictures = 0
        while claim := self.ledger.claim("w1", WorkerState(idle_ms=9000), lease=30):
            if claim.kind == "finish":
                self.ledger.finish(claim)
                continue
            if shards == 0:
                self.ledger.release(claim)
                break
            shards -= 1
            number, spec = int(claim.shard), self.ledger.spec(claim.job_id)
            shard = decode_shard(claim.blob, ImageRequest.from_mapping(spec.base), spec.name)
            store = ShardStore(
                self.output, number, claim.attempt, shard.entries, job_id=claim.job_id, column_names=(),
                adopt_below=0, layout=self.layout,
            )  # fmt: skip
            done, failures = [], []
            for position, (index, entry) in enumerate(zip(shard.indices, shard.entries, strict=True)):
                if entry.request.prompt == "!":
                    given = {"reason": "black", "job_id": claim.job_id, "command": ""}
                    failures.append(Failure(shard=number, position=position, entry=entry, **given))
                    continue
                store.save(position, drawn(entry.request), RENDERED_BY)
                done.append(index)
            assert store.commit(failures)
            left = {*shard.indices} - {*done}
            self.ledger.complete(claim, done, {index: {"reason": "black"} for index in left})
            pictures += len(done)
        return pictures

    def spoil(self, shard: int, position: int = 1) -> None:
        """Flips a bit in a picture."""
        stored = self.output.stored(shard)
        name = f"{shard:05d}{position:04d}.png"
        ((_name, picture),) = stored.pictures([name])
        file = self.output.path / stored.name
        file = file / name if file.is_dir() else file
        data = bytearray(file.read_bytes())
        data[data.index(picture) + len(picture) // 2] ^= 1
        file.write_bytes(data)


RENDERED_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={})
FOXES = [f"fox {n}" for n in range(10)]


@pytest.fixture(params=["files"])
def desk(
    redis_server: EmbeddedRedis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Desk:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", redis_server.url)
    return Desk(redis_server.url, tmp_path, request.param)


@pytest.fixture
def repaired(
    call: Call, desk: Desk, redis_server: EmbeddedRedis, monkeypatch
) -> Callable[[], dict[str, object]]:
    """What `imagemill doctor OUT --repair --json` says, with that Redis configured."""
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", redis_server.url)  # `call` knows of none

    def run() -> dict[str, object]:
        report = json.loads(call(desk.output.path, "--repair", "--json").stdout)
        assert isinstance(report, dict)
        return report

    return run


Repaired = Callable[[], dict[str, object]]


@pytest.mark.parametrize("desk", ["files", "webdataset"], indirect=True)
def test_what_is_set_aside_is_sent_back_to_its_job_and_rendered(desk: Desk, repaired: Repaired) -> None:
    job_id = desk.submit(FOXES)
    assert desk.render() == 10
    desk.spoil(0)
    desk.spoil(2)
    report = repaired()
    assert (report["sent_back"], report["missing"]) == ({job_id: 2}, {job_id: 2})
    (problem,) = [one for one in report["problems"] if one["kind"] == "missing"]
    assert problem["remedy"] == f"`imagemill watch {job_id}` follows what was sent back"
    assert not [note for note in report["notes"] if "sen" in note]
    assert desk.ledger.status(job_id).left == 2
    assert desk.render() == 2
    assert desk.ledger.status(job_id).outcome == "complete"
    after = repaired()
    assert (after["problems"], after["images"], after["sent_back"]) == ([], 10, {})


def test_what_is_sent_back_is_said(call: Call, desk: Desk, repaired: Repaired) -> None:
    desk.submit(FOXES[:3])
    desk.render()
    desk.spoil(0)
    lines = call(desk.output.path, "--repair").stdout.splitlines()
    assert lines[1:4] == [
        f"1 problem set aside in {desk.output.private}/quarantine/1",
        "sent back 1 image of foxes-1",
        "",
    ]
    assert lines[4].endswith("; `imagemill watch foxes-1` follows what was sent back")


def test_a_shard_that_is_set_aside_whole_is_sent_back(desk: Desk, repaired: Repaired) -> None:
    job_id = desk.submit(FOXES)
    desk.render()
    for position in range(4):
        desk.spoil(1, position)
    assert repaired()["sent_back"] == {job_id: 4}
    assert not desk.output.committed(1)


def test_a_line_that_says_nothing_any_more_is_sent_back(desk: Desk, repaired: Repaired) -> None:
    job_id = desk.submit(FOXES)
    desk.render()
    file = desk.output.metadata_file(0)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + b"{}\n")
    (desk.output.shard_folder(0) / "000000003.png").unlink()
    report = repaired()
    assert [problem["kind"] for problem in report["set_aside"]] == ["line"]
    assert report["sent_back"] == {job_id: 1}


@pytest.mark.parametrize("desk", ["webdataset"], indirect=True)
def test_what_a_cut_off_tar_no_longer_holds_is_sent_back(desk: Desk, repaired: Repaired) -> None:
    job_id = desk.submit(FOXES)
    desk.render()
    tar = desk.output.path / desk.output.stored(0).name
    data = tar.read_bytes()
    ((_name, last),) = desk.output.stored(0).pictures(["000000003.png"])
    tar.write_bytes(data[: data.index(last) - 512])
    report = repaired()
    assert [problem["kind"] for problem in report["set_aside"]] == ["tar"]
    assert report["sent_back"] == {job_id: 1}


@pytest.mark.parametrize("what", ["stray", "doubled"])
def test_what_costs_the_output_no_picture_sends_nothing_back(
    desk: Desk, repaired: Repaired, what: str
) -> None:
    """Else it would bring the job's failures back."""
    desk.submit([*FOXES, "!"])
    desk.render()
    folder = desk.output.shard_folder(0)
    if what == "stray":
        (folder / "cat.jpg").touch()
    else:
        record = json.loads(desk.output.metadata_file(1).read_text().splitlines()[0])
        (folder / "000000004.png").write_bytes((desk.output.shard_folder(1) / "000010000.png").read_bytes())
        with desk.output.metadata_file(0).open("a") as file:
            file.write(json.dumps(record | {"file_name": "000000004.png"}) + "\n")
    report = repaired()
    assert [problem["kind"] for problem in report["set_aside"]] == [what]
    assert report["sent_back"] == {}
    assert desk.ledger.status("foxes-1").state == "finished"


def test_of_two_jobs_the_second_is_sent_back_when_the_first_has_finished(
    desk: Desk, repaired: Repaired
) -> None:
    desk.submit(FOXES[:4])
    desk.render()
    desk.submit(FOXES[:8])
    desk.render()
    desk.spoil(0)
    desk.spoil(1)
    report = repaired()
    assert report["sent_back"] == {"foxes-1": 1}
    (note,) = [one for one in report["notes"] if "foxes-2" in one]
    assert note.startswith("sending back what foxes-2 lacks: ")
    assert note.endswith("then retry foxes-2")


def test_a_job_that_somebody_ended_is_not_gone_on_with(desk: Desk, repaired: Repaired) -> None:
    job_id = desk.submit(FOXES)
    desk.render(shards=1)
    desk.ledger.control(job_id, "cancel")
    desk.render()
    desk.spoil(0)
    report = repaired()
    assert report["sent_back"] == {}
    assert [note for note in report["notes"] if "retry" in note] == [
        "foxes-1 was cancelled: `imagemill retry foxes-1` sends back what was set aside, and all else that "
        "it left"
    ]
    assert desk.ledger.status(job_id).state == "finished"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_job_that_this_redis_does_not_hold_is_left_to_a_submission(
    desk: Desk, repaired: Repaired, elsewhere: bool
) -> None:
    desk.submit(FOXES[:3])
    desk.render()
    desk.ledger.client.flushall()
    if elsewhere:
        other = Desk(desk.url, desk.folder / "other", "files")
        other.folder.mkdir()
        assert other.submit([*FOXES, "!"]) == "foxes-1"
        other.render()
    desk.spoil(0)
    report = repaired()
    assert (report["sent_back"], report["quarantine"]) == ({}, str(desk.output.private / "quarantine" / "1"))
    (problem,) = [one for one in report["problems"] if one["kind"] == "missing"]
    assert problem["remedy"] == "if its job has ended, submit it again, or `imagemill retry foxes-1`"


def test_a_redis_that_goes_away_after_the_repair_hides_nothing_of_it(
    desk: Desk, repaired: Repaired, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.submit(FOXES[:3])
    desk.render()
    desk.spoil(0)
    mend = doctor.set_aside

    def goes_away(*arguments: object) -> object:
        done = mend(*arguments)
        redis_server.stop()
        return done

    monkeypatch.setattr(doctor, "set_aside", goes_away)
    report = repaired()
    assert [problem["kind"] for problem in report["set_aside"]] == ["picture"]
    assert report["sent_back"] == {}
    (note,) = [one for one in report["notes"] if "sent back" in one]
    assert note.startswith("what was set aside was not sent back: Redis does not answer")


def test_ctrl_c_after_the_repair_says_where_it_lies(
    call: Call, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    def set_aside_then_stopped(*arguments: object) -> object:
        done = mend(*arguments)
        monkeypatch.setattr(doctor, "check_output", interrupted)
        return done

    (output.shard_folder(0) / "cat.jpg").touch()
    mend = doctor.set_aside
    monkeypatch.setattr(doctor, "set_aside", set_aside_then_stopped)
    with pytest.raises(Interrupted, match=r"was moved to .*/quarantine/1: submit the manifest again"):
        call(output.path, "--repair")
