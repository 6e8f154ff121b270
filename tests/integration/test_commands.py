"""The command line against a real Redis: what scripts read, what people read, two submits at once."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from jobs.ledger.job import JobStatus
from jobs.ledger.redis_keys import output as output_key
from jobs.ledger.shard import decode_shard
from tests.waiting import LONGEST, WaitUntil

BIN = Path(sys.executable).parent
Finish = Callable[..., JobStatus]


def start(farm, *arguments: str | Path, **settings: object) -> subprocess.Popen[str]:
    """`imagemill ARGUMENTS`, in the background."""
    return subprocess.Popen(
        [BIN / "imagemill", *arguments], env=farm.environment(**settings), cwd=farm.folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def stored_prompts(farm, job_id: str) -> list[str]:
    """Every prompt that lies in the job's shards, in the job's order."""
    from jobs.request import ImageRequest

    spec = farm.ledger.spec(job_id)
    base = ImageRequest.from_mapping(spec.base)
    found: dict[int, str] = {}
    for blob in farm.ledger.shard_blobs(job_id):
        shard = decode_shard(blob, base, spec.name)
        for index, entry in zip(shard.indices, shard.entries, strict=True):
            assert index not in found, f"image {index} lies in two shards"
            found[index] = entry.request.prompt
    assert sorted(found) == list(range(len(found)))
    return [found[index] for index in sorted(found)]


@pytest.mark.usefixtures("troubled")
def test_submit_and_status_speak_json(farm, finished: Finish) -> None:
    manifest = farm.manifest(["one", "two", {"prompt": "three", "seeds": [1, 1]}, "!raise"])
    done = farm.command("submit", manifest, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [
        {
            "job_id": "cats-1", "attached": False, "images": 4, "held": 0, "duplicates": 1,
            "output": str(farm.output), "remark": "a stand-in: its pictures are blocks of colour",
            "skipped": 0, "skipped_rows": [], "skipped_file": None, "left_out": [], "json_columns": {},
            "equal_lines": 0, "added_lines": 0, "reused_ids": 0, "first_reused_ids": [], "syntax": [],
            "told": [],
        }
    ]  # fmt: skip
    again = json.loads(farm.command("submit", manifest, "--json").stdout)
    assert (again[0]["job_id"], again[0]["attached"], again[0]["images"]) == ("cats-1", True, 4)
    waiting = json.loads(farm.command("status", "--json").stdout)
    assert waiting["workers"] == {}
    assert [(job["job_id"], job["state"], job["left"]) for job in waiting["jobs"]] == [
        ("cats-1", "sealed", 4)
    ]
    farm.start_worker()
    ended = farm.command("submit", manifest, "--json", "--wait")
    assert ended.returncode == 1
    (job,) = json.loads(ended.stdout)
    assert (job["state"], job["outcome"], job["done"], job["failed"]) == ("finished", "failures", 3, 1)
    one = json.loads(farm.command("status", "cats-1", "--json").stdout)
    assert set(job) <= set(one)
    assert (one["eta_seconds"], one["total"], one["shards_ready"], one["shards_leased"]) == (None, 4, 0, 0)
    (failure,) = one["failures"].values()
    assert set(failure) >= {"shard", "position", "image_id", "reason"}
    (worker,) = one["alive"].values()
    assert int(worker["slots"]) == 2


def test_status_and_watch_are_plain_lines_where_no_terminal_is(farm, finished: Finish) -> None:
    assert farm.command("status").stdout.splitlines()[-1] == "0 workers"
    manifest = farm.manifest(16)
    submitted = farm.command("submit", manifest)
    assert submitted.stdout.splitlines() == [
        "cats-1: 16 images to render",
        "cats-1: a stand-in: its pictures are blocks of colour",
        "no worker is alive: start one with `imagemill-worker`; the jobs wait in Redis",
    ]
    farm.start_worker(instant_seconds=0.2)
    watched = farm.command("watch", "cats-1")
    assert watched.returncode == 0
    assert watched.stdout.splitlines()[-1].startswith(f"finished: 16 images in {farm.output}, ")
    table = farm.command("status").stdout
    assert re.search(r"^cats-1 +finished +16/16 +0 +[\d.]+ ", table, re.MULTILINE)
    page = farm.command("status", "cats-1").stdout
    assert "  images    16 of 16 done, 0 failed, 0 left" in page
    for text in (submitted.stdout, watched.stdout, table, page):
        assert "\x1b" not in text


def test_the_schema_is_one_and_takes_what_the_loader_takes(farm) -> None:
    done = farm.command("schema")
    schema = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    check.validate(json.loads(farm.manifest(["one", {"prompt": "two", "seeds": [3]}]).read_text()))
    assert not check.is_valid({"name": "cats", "model": "instant", "prompts": ["one"], "promts": []})


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "retry", "watch", "status"])
def test_an_unknown_job_is_one_message(farm, action: str) -> None:
    done = farm.command(action, "dogs-7")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no job 'dogs-7' in this Redis; the latest: none\n"


def test_the_only_unfinished_job_is_followed_without_being_named(farm, finished: Finish) -> None:
    none = farm.command("watch")
    assert (none.returncode, none.stderr.startswith("error: no job in this Redis is unfinished")) == (2, True)
    first, second = farm.submit(2), farm.submit(40, name="dogs", output=f"{farm.output}-2")
    several = farm.command("watch")
    assert several.returncode == 2
    assert f"several jobs are unfinished ({first}, {second}): name one" in several.stderr
    for _ in range(2):
        farm.command("cancel", first)
    farm.start_worker(instant_seconds=0.4)
    watched = farm.command("watch")
    assert watched.returncode == 0
    assert watched.stdout.splitlines()[-1].startswith("finished: 40 images")


def test_a_finished_job_cannot_be_steered_and_an_unfinished_one_not_retried(farm, finished: Finish) -> None:
    job_id = farm.submit(4)
    early = farm.command("retry", job_id)
    assert (early.returncode, early.stdout) == (2, "")
    assert early.stderr.startswith(f"error: {job_id} is sealed: ")
    farm.start_worker()
    finished(job_id)
    for action in ("cancel", "pause", "resume"):
        done = farm.command(action, job_id)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: {job_id} is finished already: there is nothing to {action}\n"
    nothing = farm.command("retry", job_id)
    assert (nothing.returncode, nothing.stdout) == (0, f"{job_id}: nothing is missing\n")
    farm.check_exact(job_id, 4)


def test_a_job_is_cancelled_without_a_worker_and_what_ends_it_is_told(farm) -> None:
    job_id = farm.submit(4)
    said = "no worker is alive to write its report: start one with `imagemill-worker`, or"
    done = farm.command("cancel", job_id)
    assert done.stdout == (
        f"{job_id} is ending: {said} `imagemill cancel {job_id}` ends it without a report\n"
    )
    assert f"  waits     {said}" in farm.command("status", job_id).stdout
    assert farm.command("cancel", job_id).stdout.startswith(f"{job_id} has ended, without its report")


def test_a_job_that_is_cancelled_while_it_is_rendered_ends_by_its_worker(
    farm, finished: Finish, wait_until: WaitUntil
) -> None:
    farm.start_worker(instant_seconds=0.4)
    job_id = farm.submit(160)
    wait_until(lambda: farm.status(job_id).workers, "it is rendered")
    done = farm.command("cancel", job_id)
    assert done.stdout == f"{job_id} is ending: workers give up its shards at their next step\n"
    assert finished(job_id).outcome == "cancelled"


def cpu_of(call: Callable[[], object]) -> float:
    """Seconds of CPU that the processes of a call take, the least of five."""
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        call()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def test_help_and_status_take_at_most_four_tenths_of_a_second_of_cpu(farm) -> None:
    """Where the libraries alone that they need take more than a fifth, in proportion."""
    libraries = [sys.executable, "-c", "import click, redis; from pydantic import BaseModel"]
    bound = 0.4 * max(1.0, cpu_of(lambda: subprocess.run(libraries, check=True)) / 0.2)
    farm.submit(4)
    for arguments in (["--help"], ["status"], ["status", "cats-1"]):
        taken = cpu_of(lambda arguments=arguments: farm.command(*arguments).check_returncode())
        assert taken <= bound, (arguments, taken, bound)


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["status", "--json"], ["pause", "cats-1"]])
def test_commands_that_only_look_load_neither_torch_nor_celery(farm, arguments: list[str]) -> None:
    farm.submit(4)
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from producer.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=farm.environment(), capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    assert "producer" in loaded
    assert not loaded & {"torch", "diffusers", "transformers", "celery", "kombu", "numpy", "PIL", "worker"}


def test_no_module_of_the_producer_loads_torch_or_the_worker(farm) -> None:
    import producer

    folder = Path(producer.__path__[0])
    modules = sorted(f"producer.{file.stem}" for file in folder.glob("*.py") if file.stem != "__init__")
    assert len(modules) >= 5
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "diffusers", "transformers", "PIL", "worker"}


def test_limit_and_sample_say_which_images_and_a_narrower_submission_is_another_job(farm) -> None:
    manifest = farm.manifest(100)
    assert farm.command("submit", manifest, "--limit", "3").returncode == 0
    assert stored_prompts(farm, "cats-1") == ["picture 0", "picture 1", "picture 2"]
    taken = farm.command("submit", manifest, "--sample", "5")
    assert taken.returncode == 2
    assert "`imagemill cancel cats-1`" in taken.stderr
    samples = []
    for number in (2, 3):
        farm.client.delete(output_key(str(farm.output)))
        assert farm.command("submit", manifest, "--sample", "5").returncode == 0
        samples.append(stored_prompts(farm, f"cats-{number}"))
    assert samples[0] == samples[1]
    assert len(samples[0]) == 5


def test_two_submits_of_one_manifest_at_once_make_one_job(farm, finished: Finish) -> None:
    manifest = farm.manifest(240, shard_size=4)
    submits = [start(farm, "submit", manifest) for _ in range(3)]
    found = [submit.communicate(timeout=LONGEST) for submit in submits]
    assert [submit.returncode for submit in submits] == [0, 0, 0], found
    assert farm.ledger.job_ids() == ["cats-1"]
    assert sum("it was submitted before and continues" in out for out, _err in found) == 2
    farm.start_worker()  # not before: to submit what has been finished begins another job
    finished("cats-1")
    farm.check_exact("cats-1", 240)


def test_a_submit_killed_in_the_middle_is_gone_on_with(farm, wait_until: WaitUntil) -> None:
    images = 20_000
    manifest = farm.manifest(images, shard_size=4)
    submit = start(farm, "submit", manifest)
    wait_until(
        lambda: farm.ledger.job_ids() and farm.ledger.submission("cats-1").cursor > 0, "shards are stored"
    )
    os.kill(submit.pid, signal.SIGKILL)
    submit.communicate()
    at = farm.ledger.submission("cats-1")
    assert at.state == "open"
    assert 0 < at.cursor < images
    done = farm.command("submit", manifest)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"cats-1: {images:,} images to render" in done.stdout
    assert "it was submitted before and continues" in done.stdout
    assert farm.status("cats-1").state == "sealed"
    assert stored_prompts(farm, "cats-1") == [f"picture {n}" for n in range(images)]
