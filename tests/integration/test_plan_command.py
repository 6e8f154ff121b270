"""`imagemill plan` beside real workers: it knows what they rendered and how fast, and leaves no trace."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.submit import prompts
from jobs.ledger import redis_keys
from jobs.ledger.job import JobStatus

Finish = Callable[..., JobStatus]
PROMPTS = [{"prompt": f"a red circle {n}", "id": f"c{n}"} for n in range(20)]
SHAPES = {
    "model": "shapes",
    "settings": {"num_inference_steps": 4, "guidance_scale": 3.0, "scheduler": "DDIM"},
}


def plan(farm, manifest: Path, *options: str, **settings: object) -> dict[str, object]:
    done = farm.command("plan", manifest, "--json", *options, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def traces(farm) -> list[object]:
    """All that is on disk, with its times, and in Redis, but for what workers and Redis always write."""
    files = [
        (str(file), file.lstat().st_mtime_ns)
        for file in sorted(farm.folder.rglob("*"))
        if "redis" not in file.parts and file.suffix != ".log"
    ]
    client = farm.client
    theirs = {key.encode() for key in (redis_keys.REAPED, redis_keys.SWEPT, redis_keys.CLAIMABLE)}
    keys = [key for key in sorted(client.keys("imagemill:*")) if b":worker" not in key and key not in theirs]
    return [files, [(key, client.dump(key)) for key in keys]]


def figures(message: dict[str, object]) -> tuple[object, ...]:
    return message["new"], message["changed"], message["unchanged"], message["orphaned"]


def test_a_plan_agrees_with_what_submitting_does_and_shows_the_time_from_what_workers_did(
    farm, finished: Finish
) -> None:
    manifest = farm.manifest(PROMPTS, **SHAPES)
    planned = plan(farm, manifest)
    assert figures(planned) == (20, 0, 0, 0)
    assert (planned["times"], planned["times_unknown"], planned["workers"]) == ([], "", 0)
    assert planned["groups"] == [
        {"height": 64, "width": 64, "num_inference_steps": 4, "guided": True, "images": 20, "to_render": 20,
         "row_evaluations": 20 * 4 * 2}
    ]  # fmt: skip

    farm.start_worker("w1", "--batch-size", "8")
    first = finished(farm.submit(PROMPTS, **SHAPES))
    assert first.done == 20
    assert figures(plan(farm, manifest)) == (0, 0, 20, 0)

    edited = [{"prompt": "a blue square", "id": "c0"}, *PROMPTS[2:], "a green star", "a pink star"]
    manifest = farm.manifest(edited, **SHAPES)
    before = traces(farm)
    planned = plan(farm, manifest)
    assert figures(planned) == (2, 1, 18, 2)
    assert [(one["id"], one["replaced"]) for one in planned["orphans"]] == [("c0", True), ("c1", False)]
    assert planned["row_evaluations"] == 3 * 4 * 2
    [time] = planned["times"]
    [(size, rate)] = farm.ledger.rates().items()
    assert (time["device"], time["precision"], time["images"]) == (size.device, "fp32", 3)
    assert time["seconds"] * rate == pytest.approx(3 * 4 * 2)
    # The whole job, loading and measuring with it, took longer than what its pictures were charged.
    assert 0 < 20 * 4 * 2 / rate < first.finished - first.started
    disk = sum(file.stat().st_size for file in farm.output.glob("0*/*"))
    assert planned["disk_bytes"] == round(3 * disk / 20)
    assert len(planned["first"]) == len(planned["last"]) == 3

    with_text = farm.command("plan", manifest)
    assert with_text.returncode == 0
    assert f" on {size.device} in fp32, without loading the model" in with_text.stdout
    assert traces(farm) == before

    second = finished(farm.submit(edited, **SHAPES))
    assert (second.done, second.held) == (3, 18)


def test_bytes_in_redis_are_about_those_that_a_submission_of_prose_takes(farm) -> None:
    asked = list(prompts(3000))
    planned = plan(farm, farm.manifest(asked, shard_size=64))
    job_id = farm.submit(asked, shard_size=64)
    taken = farm.client.memory_usage(redis_keys.job(job_id, "shards"), samples=0)
    assert taken * 0.8 < planned["redis_bytes"] < taken * 1.25


def test_without_redis_a_plan_shows_the_rest_and_makes_no_folder(farm) -> None:
    manifest = farm.manifest(PROMPTS, **SHAPES)
    environment = {name: value for name, value in farm.environment().items() if name != "IMAGEMILL_REDIS_URL"}
    before = sorted(map(str, farm.folder.rglob("*")))
    done = farm.run_in(environment, "plan", manifest, "--limit", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  time       unknown: no Redis\n" in done.stdout
    assert sorted(map(str, farm.folder.rglob("*"))) == before


def test_a_wrong_row_of_a_prompt_file_is_named_and_the_status_is_2(farm) -> None:
    (farm.folder / "cats.csv").write_text("prompt,width\na cat,64\na cat,65\n")
    done = farm.command("plan", farm.manifest(["a dog"], prompts_from="cats.csv"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "cats.csv:3: width" in done.stderr


def test_a_plan_loads_neither_torch_nor_celery(farm) -> None:
    code = (
        f"import sys; sys.argv[1:] = ['plan', {str(farm.manifest(3))!r}]\n"
        "from producer.cli import command\n"
        "command(standalone_mode=False)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=farm.environment(), capture_output=True, text=True, check=True
    )  # fmt: skip
    assert "producer" in done.stderr.split()
    assert not set(done.stderr.split()) & {"torch", "diffusers", "celery", "PIL", "numpy", "worker"}
