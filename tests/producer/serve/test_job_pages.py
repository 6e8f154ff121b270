"""The pages of all jobs and of one: what they show is what the ledger says, as text."""

from __future__ import annotations

import html
import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jobs.entry import Entry
from jobs.errors import LedgerError
from jobs.ledger import redis_keys
from jobs.ledger.job import WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.ledger_view import LedgerView
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.serve import failure_list, ledger_watch
from producer.serve.app import create_app
from producer.serve.doors import Doors
from producer.serve.failure_list import MOST
from producer.serve.opened import site_of
from producer.serve.outputs import Outputs
from producer.serve.pages import Pages
from producer.serve.server import listen, serving
from producer.serve.site import Site
from tests.conftest import BASE
from tests.page_text import words
from tests.silent_store import SilentStore
from tests.waiting import LONGEST

Visit = Callable[..., TestClient]
Submit = Callable[..., str]
HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(2)> {{ 7*7 }} ' \u202e\x1b[31m"""
SOMETHING = {"models": "[]", "claims": "[]", "busy": 0, "slots": 2}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page waits for all that is to be read, however busy this machine is."""
    monkeypatch.setattr(failure_list, "PATIENCE", LONGEST)


def test_without_jobs_the_page_says_how_to_make_one(visit: Visit) -> None:
    page = words(visit().get("/").text)
    assert "There is no job yet: imagemill run FILE" in page
    assert "No worker is alive." in page


def test_where_no_redis_is_named_that_is_a_notice_and_no_alarm(output: Output, tmp_path: Path) -> None:
    settings = Settings(redis_url=None, runtime_dir=tmp_path)
    visitor = TestClient(create_app(site_of(settings, [output])), "http://127.0.0.1:8484")
    page = visitor.get("/").text
    said = words(page)
    assert "jobs appear here when there is a Redis" in said
    assert 'class="alarm"' not in page.partition("<main")[2] and "Redis cannot be read" not in said
    assert f"Outputs {output.label}" in said and "Further" not in said


def test_a_message_keeps_its_lines(output: Output) -> None:
    def connect() -> LedgerView:
        raise LedgerError("Redis is <b>\nstart `one`")

    watch = ledger_watch.LedgerWatch(connect)
    site = Site(watch, Outputs([output], watch), Pages(guarded=False), Doors())
    page = TestClient(create_app(site), "http://127.0.0.1:8484").get("/").text
    assert "Redis is &lt;b&gt;<br>start <code>one</code>" in page


def test_all_jobs_are_shown_with_their_state_counts_and_why_they_wait(
    visit: Visit, submit_job: Submit, ledger: Ledger
) -> None:
    first, second = submit_job(3), submit_job(2, output="/data/dogs", name="dogs")
    ledger.control(first, "pause")
    page = visit().get("/").text
    said = words(page)
    assert f"{second} waiting 0 of 8 0 of 8 done" in said  # the bar says it, too
    assert f"{first} paused 0 of 12 0 of 12 done" in said
    assert f"waits: it is paused: imagemill resume {first} continues it" in said
    assert "waits: no worker is alive: start one with imagemill-worker" in said
    assert said.index(second) < said.index(first)
    assert 'hx-trigger="every 2s"' in page


def test_many_jobs_have_several_pages_and_those_that_are_not_finished_come_first(
    visit: Visit, submit_job: Submit, ledger: Ledger
) -> None:
    ids = [submit_job(1, name=f"job{n:02}", output=f"/data/{n}") for n in range(53)]
    ledger.client.hset(f"imagemill:job:{ids[-1]}", mapping={"state": "finished", "outcome": "complete"})
    visitor = visit()
    first, second = visitor.get("/").text, visitor.get("/?from=50").text
    assert re.findall(r'id="job-[0-9a-f]+" href="/jobs/([^"]+)"', first) == ids[-2:1:-1]
    assert re.findall(r'id="job-[0-9a-f]+" href="/jobs/([^"]+)"', second) == [ids[1], ids[0], ids[-1]]
    assert 'href="/?from=50">Older</a>' in first and "Newer" not in first
    assert 'href="/">Newer</a>' in second and "Older" not in second
    assert 'hx-get="/?part=live&amp;from=50"' in second
    for odd in ("-1", "99999999999999999999", "x", "²", "53"):
        assert visitor.get("/", params={"from": odd}).text == first


def test_the_bar_of_a_job_tells_what_failed_from_what_is_done(
    visit: Visit, submit_job: Submit, ledger: Ledger
) -> None:
    bars = r'<progress (?:class="(failed)" )?max="(\d+)" value="(\d+)"'
    job_id = submit_job(3)
    assert re.findall(bars, visit().get(f"/jobs/{job_id}").text) == [("", "12", "0")]
    ledger.client.hset(f"imagemill:job:{job_id}", mapping={"done": 7, "failed": 2})
    for path in ("/", f"/jobs/{job_id}"):
        assert re.findall(bars, visit().get(path).text) == [("", "12", "7"), ("failed", "12", "9")], path


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"run": 1}, "priority 5 submitted"),
        ({"run": 2}, "priority 5 run 2 (retried or recovered once) submitted"),
        ({"run": 4}, "priority 5 run 4 (retried or recovered 3 times) submitted"),
        ({"held": 1}, "1 was already there"),
        ({"held": 1200}, "1,200 were already there"),
    ],
)
def test_a_job_tells_its_runs_and_what_was_there_in_words(
    told: dict[str, int], said: str, visit: Visit, submit_job: Submit, ledger: Ledger
) -> None:
    job_id = submit_job()
    ledger.client.hset(f"imagemill:job:{job_id}", mapping=told)
    assert said in words(visit().get(f"/jobs/{job_id}").text)


def test_what_changes_is_asked_for_alone(visit: Visit, submit_job: Submit) -> None:
    job_id = submit_job()
    for path in ("/", f"/jobs/{job_id}"):
        part = visit().get(f"{path}?part=live").text
        assert part.startswith('<div id="live" ')
        assert "<html" not in part
        assert part in visit().get(path).text


def test_a_job_is_shown_with_its_workers_shards_refusals_and_notices(
    visit: Visit, submit_job: Submit, ledger: Ledger
) -> None:
    job_id = submit_job(3)
    ledger.heartbeat(
        "gpu0@a",
        {**SOMETHING, "host": "a", "pipeline": '["org/m", "r", "fp16"]', "claims": f'[["{job_id}", "0", 5]]',
         "busy": 1, "images": 41, "notice": "no space left at /data", "device": "NVIDIA L4"},
    )  # fmt: skip
    ledger.heartbeat("gpu1@b", SOMETHING)
    claim = ledger.claim("gpu0@a", WorkerState(), lease=30)
    assert claim is not None
    refused = ledger.claim("gpu1@b", WorkerState(), lease=30)
    assert refused is not None
    ledger.refuse(refused, "gpu1@b", "org/m: is not there")
    visitor = visit()
    said = words(visitor.get(f"/jobs/{job_id}").text)
    assert "3 in all, 2 waiting, 1 being rendered" in said
    assert "gpu1@b : org/m: is not there" in said
    assert (
        f"model org/m (takes any model) device NVIDIA L4 shards {job_id} (0) 1 of 2 images 41 since" in said
    )
    assert "no space left at /data" in said
    assert "gpu1@b model" not in said
    assert "gpu1@b" in words(visitor.get("/").text)


def test_a_job_that_is_not_there_is_a_page_that_says_so(visit: Visit) -> None:
    answer = visit().get("/jobs/cats-9")
    assert answer.status_code == 404
    assert "there is no such job in this Redis" in answer.text
    assert visit().get("/nothing/at/all").status_code == 404


def failed(job_id: str, shard: int, position: int) -> Failure:
    return Failure(
        shard=shard,
        position=position,
        entry=Entry.of(BASE),
        reason="all black",
        job_id=job_id,
        command=f"imagemill-worker render '{shard} {position}'",
    )


@pytest.mark.usefixtures("patient")
def test_pictures_outside_of_the_root_are_refused_with_the_reason(
    visit: Visit, submit_job: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_OUTPUT_ROOT", str(tmp_path / "root"))
    job_id = submit_job(output=str(tmp_path / "outside"))
    visitor = visit()
    [link] = re.findall(r'id="pictures" href="([^"]*)"', visitor.get(f"/jobs/{job_id}").text)
    refused = visitor.get(link)
    assert refused.status_code == 404
    assert "outside lies outside IMAGEMILL_OUTPUT_ROOT" in refused.text


def test_a_failure_has_its_reproducing_command_once_its_shard_is_finished(
    visit: Visit, submit_job: Submit, ledger: Ledger, tmp_path: Path
) -> None:
    output = Output(tmp_path / "out")
    output.prepare()
    job_id = submit_job(2, output=output.label)
    claim = ledger.claim("w", WorkerState(), lease=30)
    assert claim is not None
    failure = failed(job_id, 0, 1)
    ledger.record(claim, [], {1: failure.in_ledger()}, [])
    visitor = visit()
    said = words(visitor.get(f"/jobs/{job_id}").text)
    assert f"image 1 {failure.image_id} , shard 0: all black" in said
    assert "is here once its shard is finished" in said
    output.shard_folder(0).mkdir(parents=True)
    output.metadata_file(0).write_text("", "utf-8")
    output.failures_file(0).write_text(failure.to_json() + "\n", "utf-8")
    ledger.complete(claim, [0, 2, 3], {1: failure.in_ledger()})
    visitor = visit()
    page = visitor.get(f"/jobs/{job_id}").text
    assert "imagemill-worker render '0 1'" in words(page)
    link = re.search(r'id="failed-1" href="([^"]*)"', page)
    assert link is not None
    assert "This image failed. all black" in words(visitor.get(link[1]).text)


@pytest.mark.usefixtures("patient")
def test_of_many_failures_few_are_read_and_the_same_ones_are_shown_again(
    visit: Visit, submit_job: Submit, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_watch, "OLDEST", 0.0)
    monkeypatch.setattr(failure_list, "PAUSE", 0.0)
    job_id, many = submit_job(), 20_000
    told = {"shard": 0, "position": 0, "image_id": "0" * 16, "reason": "all black " * 10}
    failures, job = (redis_keys.job(job_id, part) for part in ("failures", None))
    with ledger.client.pipeline() as pipe:
        for index in range(many):
            pipe.hset(failures, str(index), json.dumps(told))
        pipe.hset(job, "failed", many)
        pipe.execute()
    visitor = visit()
    shown, sent = list[list[str]](), list[int]()
    for more in range(3):
        ledger.client.hset(failures, str(many + more), json.dumps(told))
        ledger.client.hset(job, "failed", many + more + 1)
        before = ledger.client.info("stats")["total_net_output_bytes"]
        page = visitor.get(f"/jobs/{job_id}").text
        sent.append(ledger.client.info("stats")["total_net_output_bytes"] - before)
        shown.append(re.findall(r"<b>image (\d+)</b>", page))
        assert f"{many + more + 1 - MOST:,} more: see failures.jsonl" in words(page)
    assert [len(one) for one in shown] == [MOST] * 3
    assert shown[0] == sorted(shown[0], key=int) == shown[1] == shown[2]
    assert max(sent) < 200_000  # all of them are 3 MB


@pytest.mark.usefixtures("patient")
def test_failures_are_read_once_in_a_while_however_often_one_comes(
    visit: Visit, submit_job: Submit, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_watch, "OLDEST", 0.0)
    monkeypatch.setattr(failure_list, "PAUSE", LONGEST)
    job_id = submit_job()
    visitor = visit()
    for index in range(4):
        ledger.client.hset(redis_keys.job(job_id, "failures"), str(index), "{}")
        ledger.client.hset(redis_keys.job(job_id), "failed", index + 1)
        assert "image 0" in words(visitor.get(f"/jobs/{job_id}").text)
    assert ledger.client.info("commandstats")["cmdstat_hscan"]["calls"] == 1


def test_a_job_is_shown_while_the_store_of_its_output_gives_no_answer(
    redis_server: EmbeddedRedis, submit_job: Submit, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = listen("127.0.0.1", 0)
    settings = Settings(redis_url=redis_server.url)  # type: ignore[arg-type]
    with serving(listener, lambda: site_of(settings, [])), SilentStore() as store:
        store.lead(monkeypatch)
        job_id = submit_job(output=store.place)
        claim = ledger.claim("w", WorkerState(), lease=30)
        assert claim is not None
        ledger.record(claim, [], {1: failed(job_id, 0, 1).in_ledger()}, [])
        visits = [urllib.request.urlopen(f"{listener.url}/jobs/{job_id}", timeout=LONGEST) for _ in range(6)]
        said = [words(visit.read().decode()) for visit in visits]
        assert store.asked <= 2
    for page in said:
        assert "shard 0: all black" in page
        assert "the commands that render them again are being read" in page


@pytest.mark.usefixtures("patient")
def test_a_failure_that_nobody_could_have_written_costs_no_page(
    visit: Visit, submit_job: Submit, ledger: Ledger
) -> None:
    job_id = submit_job()
    odd = ['{"shard": [1]}', '{"shard": 1e300, "image_id": {}}', "[", '{"shard": -7, "reason": null}']
    ledger.client.hset(f"imagemill:job:{job_id}:failures", mapping=dict(enumerate(odd)))
    ledger.client.hset(f"imagemill:job:{job_id}", mapping={"failed": len(odd), "output": "no/path\0"})
    answer = visit().get(f"/jobs/{job_id}")
    assert answer.status_code == 200
    assert "what Redis held of it cannot be read" in answer.text
    assert "the commands that render them again cannot be read here" in answer.text


def test_a_job_cannot_be_looked_for_while_redis_is_away(visit: Visit, redis_server: EmbeddedRedis) -> None:
    visitor = visit()
    redis_server.stop()
    answer = visitor.get("/jobs/cats-1")
    assert answer.status_code == 503
    assert "Redis cannot be read: Redis does not answer" in answer.text
    redis_server.start()


@pytest.mark.usefixtures("patient")
def test_strangers_text_is_text(visit: Visit, submit_job: Submit, ledger: Ledger) -> None:
    job_id = submit_job(model=HOSTILE, output=f"/data/{HOSTILE}", name="cats")
    hostile = dict.fromkeys(("host", "notice", "loading", "twin", "device", "slots", "images"), HOSTILE)
    ledger.heartbeat(HOSTILE, {**hostile, "models": "[]", "claims": "[]", "pipeline": "[", "busy": HOSTILE})
    claim = ledger.claim(HOSTILE, WorkerState(), lease=30)
    assert claim is not None
    ledger.record(claim, [], {0: {"shard": 0, "position": 0, "image_id": HOSTILE, "reason": HOSTILE}}, [])
    visitor = visit()
    check_escaped(visitor.get("/").text)
    check_escaped(visitor.get(f"/jobs/{job_id}").text)
    ledger.client.rename(f"imagemill:job:{job_id}", f"imagemill:job:{HOSTILE}")
    ledger.client.zadd("imagemill:jobs", {HOSTILE: 2})
    visitor = visit()
    check_escaped(visitor.get("/").text)
    check_escaped(visitor.get("/jobs/" + "".join(f"%{byte:02x}" for byte in HOSTILE.encode())).text)


def check_escaped(page: str) -> None:
    """The hostile text is there, and is no markup and no template."""
    assert html.unescape(re.sub(r"<i class=turns [^>]*>|</i>", "", page)).count(HOSTILE) > 2
    for name, attributes in re.findall(r"<(script|img)\b([^>]*)>", page):
        assert name == "script" and 'src="/static/' in attributes
    assert "<script>" not in page
    assert not re.search(r"<[^>]*\son\w+=", re.sub(r'"[^"]*"', '""', page))


@pytest.mark.parametrize("shape", ["none", "other"])
def test_a_job_that_cannot_be_read_hides_no_other(
    shape: str, visit: Visit, submit_job: Submit, ledger: Ledger
) -> None:
    broken, sound = submit_job(), submit_job(output="/data/dogs", name="dogs")
    ledger.client.hdel(f"imagemill:job:{broken}", "state" if shape == "none" else "output")
    said = words(visit().get("/").text)
    assert f"{broken} cannot be read" in said and f"{sound} waiting" in said
    assert f"imagemill cancel {broken} removes it" in words(visit().get(f"/jobs/{broken}").text)
