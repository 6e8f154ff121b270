"""The pages in Chromium: live, with strangers' text as text, by keyboard, and on a phone."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page

from jobs.ledger.job import WorkerState
from jobs.ledger.ledger import Ledger
from jobs.output.output import Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.serve.opened import site_at, site_of
from producer.serve.outputs import key_of
from producer.serve.server import listen, serving
from tests.breakable_redis import BreakableRedis
from tests.browser import BACKWARDS, LOW, TURNED, chromium, visiting
from tests.farm import Farm
from tests.rendered_output import rendered
from tests.visitor import TOKEN
from tests.waiting import LONGEST, WaitUntil
from tests.warm_python import BIN

__all__ = ["rendered"]

HOSTILE = (
    """<script>window.hit=1</script>"><img src="http://strangers.example/x" onerror="hit=1"> {{7*7}} '"""
)
LONG = "a-name-without-any-space-" * 8
DRAWN = "() => [...document.querySelectorAll('.tile img')].slice(0, 6).every((one) => one.naturalWidth > 0)"
NUMBERS = "() => document.querySelector('progress').value"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all."""
    with chromium() as started:
        yield started


@contextmanager
def pages(url: str) -> Iterator[str]:
    """The pages of a Redis; yields their address."""
    listener = listen("127.0.0.1", 0)
    settings = Settings(redis_url=url)  # type: ignore[arg-type]
    with serving(listener, lambda: site_of(settings, [])):
        yield listener.url


def spoil(ledger: Ledger, submit_job: Callable[..., str]) -> str:
    """A job and a worker whose every text is hostile, or long, and a failure of the same kind."""
    job_id = submit_job(3, name="cats", model=HOSTILE + LONG, output=f"/data/{HOSTILE}")
    facts = dict.fromkeys(("host", "notice", "loading", "twin", "device"), HOSTILE + LONG)
    ledger.heartbeat(
        HOSTILE, {**facts, "models": json.dumps([]), "claims": "[]", "pipeline": json.dumps([HOSTILE + LONG])}
    )
    claim = ledger.claim(HOSTILE, WorkerState(), lease=600)
    assert claim is not None
    failure = {"shard": 0, "position": 0, "image_id": "0" * 16, "reason": HOSTILE + LONG}
    ledger.record(claim, [], {0: failure}, [])
    return job_id


def is_wide(page: Page) -> bool:
    """Whether a reader must scroll sideways."""
    wide: bool = page.evaluate("() => document.documentElement.scrollWidth > window.innerWidth")
    return wide


def test_progress_of_a_real_job_moves_without_a_reload(
    browser: Browser, farm: Farm, wait_until: WaitUntil
) -> None:
    farm.start_worker(instant_seconds=0.4)
    job_id = farm.submit(160)
    with pages(farm.server.url) as server, visiting(browser) as visit:
        visit.page.goto(f"{server}/jobs/{job_id}")
        seen = {0}
        wait_until(
            lambda: seen.add(visit.page.evaluate(NUMBERS)) or len(seen) > 2,
            "the bar moves",
            progress=lambda: (farm.status(job_id).done, len(seen)),
        )
        assert visit.page.locator("h1 .state").inner_text() in ("running", "finishing", "finished")
        farm.finished(job_id)
        visit.page.locator("h1 .state", has_text=re.compile("^finished$")).wait_for()
        assert visit.page.evaluate(NUMBERS) == 160
        visit.page.get_by_role("link", name="imagemill", exact=True).click()
        assert "160 of 160 done" in visit.page.get_by_role("listitem").filter(has_text=job_id).inner_text()
        worker = visit.page.get_by_role("region", name="w1")
        assert "instant" in worker.inner_text()
        assert [url for url in visit.asked if url == f"{server}/jobs/{job_id}"] == [f"{server}/jobs/{job_id}"]
        visit.check(server)


def test_pictures_of_a_real_job_appear_while_it_renders_without_a_reload(
    browser: Browser, farm: Farm, wait_until: WaitUntil
) -> None:
    job_id = farm.submit(48)
    with pages(farm.server.url) as server, visiting(browser) as visit:
        page = visit.page
        page.goto(f"{server}/jobs/{job_id}")
        page.get_by_role("link", name="See the pictures").click()
        page.get_by_text("New pictures appear here.").wait_for()
        page.get_by_text("A job here is not finished.").wait_for()
        gallery = page.url
        page.evaluate("() => { window.stayed = true; }")
        farm.start_worker("w1", "--batch-size", "4", instant_seconds=1)

        def appear(count: int, said: str) -> None:
            """Waits until so many pictures are there, and counted, and are new no longer."""
            wait_until(
                lambda: (
                    page.locator(".tile").count() == count
                    and re.match(rf"(about )?{count} pictures", page.locator("#extent").inner_text())
                    and page.locator("#new").inner_text() == said
                ),
                f"{count} pictures are shown",
                progress=lambda: page.locator(".tile").count(),
            )
            assert len({*page.locator(".says").all_text_contents()}) == count

        wait_until(lambda: farm.status(job_id).done, "pictures are there", progress=lambda: farm.log("w1"))
        farm.ledger.control(job_id, "pause")
        wait_until(
            lambda: not farm.status(job_id).shards_leased, "it pauses", progress=lambda: farm.log("w1")
        )
        some = farm.status(job_id).done
        assert 0 < some < 48, "a worker renders four a second"
        appear(some, "A job here is not finished.")
        farm.ledger.control(job_id, "resume")
        farm.finished(job_id)
        appear(48, "")
        page.wait_for_function(DRAWN)
        assert page.evaluate("() => window.stayed")
        assert visit.asked.count(gallery) == 1
        visit.check(server)


def test_an_open_gallery_says_that_its_output_is_gone_and_goes_on_when_it_is_back(
    browser: Browser,
    redis_server: EmbeddedRedis,
    submit_job: Callable[..., str],
    rendered: Callable[..., Output],
    wait_until: WaitUntil,
) -> None:
    output = rendered(8)
    submit_job(output=output.label)
    elsewhere = output.path.with_name("elsewhere")
    gone = f"{output.label}: there is no such folder on this machine: was it moved or removed?"
    with pages(redis_server.url) as server, visiting(browser, height=300) as visit:
        page = visit.page
        page.goto(f"{server}/outputs/{key_of(output.label)}")
        page.get_by_text("New pictures appear here.").wait_for()
        page.evaluate("() => window.scrollTo(0, 200)")
        output.path.rename(elsewhere)
        page.locator("#stale").get_by_text(gone).wait_for()
        said = page.locator("#stale").inner_text()
        assert said == f"The server answered with an error: {gone} This page shows what was known last."
        box = page.locator("#stale").bounding_box()
        assert box is not None and box["y"] >= 0  # it is seen, however far one has scrolled
        assert page.locator(".tile").count() == 8
        elsewhere.rename(output.path)
        page.locator("#stale").wait_for(state="hidden")
        output.path.rename(elsewhere)
        page.reload()
        page.locator("#absent").get_by_text(gone).wait_for()
        elsewhere.rename(output.path)
        wait_until(lambda: page.locator(".tile").count() == 8, "pictures come")
        page.locator("#absent").wait_for(state="detached")
        page.locator("#stale").wait_for(state="hidden")
        assert [one for one in visit.troubles if "502" not in one] == []


def test_strangers_text_is_shown_as_text_and_runs_and_loads_nothing(
    browser: Browser, redis_server: EmbeddedRedis, ledger: Ledger, submit_job: Callable[..., str]
) -> None:
    job_id = spoil(ledger, submit_job)
    with pages(redis_server.url) as server, visiting(browser) as visit:
        for path in ("/", f"/jobs/{job_id}"):
            visit.page.goto(server + path)
            with visit.page.expect_response(lambda answer: "part=live" in answer.url):
                pass  # what is swapped in is looked at, too
            visit.page.wait_for_timeout(200)
            assert HOSTILE in visit.page.locator("main").inner_text()
            assert visit.page.evaluate("() => window.hit === undefined && !document.images.length")
        visit.check(server)


def test_marks_that_turn_a_text_around_turn_nothing_on_the_pages_of_jobs(
    browser: Browser, redis_server: EmbeddedRedis, ledger: Ledger, submit_job: Callable[..., str]
) -> None:
    job_id = submit_job(3, model=TURNED, output=f"/data/{TURNED} x")
    facts = dict.fromkeys(
        ("host", "notice", "loading", "twin", "device", "slots", "images"), f"{TURNED} is so"
    )
    claims = f'[["{TURNED}", "{TURNED}", 5]]'
    pipeline = json.dumps([f"org/{TURNED}", "", "fp32"])
    ledger.heartbeat(
        TURNED, {**facts, "models": json.dumps([TURNED]), "claims": claims, "pipeline": pipeline}
    )
    claim = ledger.claim(TURNED, WorkerState(), lease=600)
    assert claim is not None
    failure = {"shard": 0, "position": 0, "image_id": TURNED, "reason": f"{TURNED} and black"}
    ledger.record(claim, [], {0: failure}, [])
    ledger.refuse(claim, TURNED, f"{TURNED} is not there")
    waits = submit_job(name="dogs", model=f"other/{TURNED}", output="/data/dogs")
    ledger.client.hset(f"imagemill:job:{waits}", mapping={"reason": f"{TURNED} said so"})
    broken = submit_job(name="hens", output="/data/hens")
    ledger.client.hset(f"imagemill:job:{broken}", mapping={"state": f"{TURNED} is it"})
    with pages(redis_server.url) as server, visiting(browser) as visit:
        told = ("/", f"/jobs/{job_id}", f"/jobs/{waits}")
        for path in (*told, f"/jobs/{broken}", f"/jobs/{quote(TURNED)}"):
            visit.page.goto(server + path)
            assert visit.page.locator(".turns").count() or path not in told, path
            assert visit.page.evaluate(BACKWARDS) == [], path


def test_an_outage_of_redis_is_told_with_its_beginning_and_passes(browser: Browser, tmp_path: Path) -> None:
    with (
        BreakableRedis(tmp_path / "redis") as redis,
        pages(redis.url) as server,
        visiting(browser) as visit,
    ):
        job_id = Farm(tmp_path, redis).submit(4)
        visit.page.goto(server)
        redis.kill(signal.SIGTERM)
        alarm = visit.page.get_by_text("Redis cannot be read since")
        alarm.wait_for()
        assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", alarm.inner_text())
        assert job_id in visit.page.locator("main").inner_text()
        redis.start()
        alarm.wait_for(state="detached")
        assert job_id in visit.page.locator("main").inner_text()
        visit.check(server)


def test_a_page_whose_server_has_ended_says_that_it_is_old(
    browser: Browser, redis_server: EmbeddedRedis, submit_job: Callable[..., str]
) -> None:
    submit_job()
    with visiting(browser) as visit:
        with pages(redis_server.url) as server:
            visit.page.goto(server)
            assert not visit.page.locator("#stale").is_visible()
        visit.page.get_by_text("The server does not answer.").wait_for()
        said = visit.page.locator("#stale").inner_text()
        assert said == "The server does not answer. This page shows what was known last."


def test_a_page_whose_job_redis_has_lost_says_that_it_is_old(
    browser: Browser, redis_server: EmbeddedRedis, submit_job: Callable[..., str], ledger: Ledger
) -> None:
    job_id = submit_job()
    with visiting(browser) as visit, pages(redis_server.url) as server:
        visit.page.goto(f"{server}/jobs/{job_id}")
        ledger.client.flushall()
        visit.page.get_by_text("answered with an error").wait_for()
        asked = len(visit.asked)
        while len(visit.asked) < asked + 2:  # each answer is an error: none takes the words back
            visit.page.wait_for_timeout(100)
            assert visit.page.get_by_text("answered with an error").is_visible()


def test_everything_is_reached_by_keyboard_with_its_focus_seen_and_kept(
    browser: Browser, redis_server: EmbeddedRedis, submit_job: Callable[..., str]
) -> None:
    job_id = submit_job(2)
    with pages(redis_server.url) as server, visiting(browser) as visit:
        page = visit.page
        page.goto(server)
        reached = []
        for _ in range(4):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("() => document.activeElement.innerText"))
            assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert reached == ["Skip to content", "imagemill", job_id, "pictures"]
        page.keyboard.press("Shift+Tab")
        with page.expect_response(lambda answer: "part=live" in answer.url):
            pass
        page.wait_for_timeout(200)
        assert page.evaluate("() => document.activeElement.innerText") == job_id
        page.keyboard.press("Enter")
        page.wait_for_url(f"{server}/jobs/{job_id}")
        visit.check(server)


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(
    dark: bool,
    browser: Browser,
    redis_server: EmbeddedRedis,
    ledger: Ledger,
    submit_job: Callable[..., str],
) -> None:
    job_id = spoil(ledger, submit_job)
    with pages(redis_server.url) as server, visiting(browser, width=340, height=700, dark=dark) as visit:
        for path in ("/", f"/jobs/{job_id}", "/sign-in", "/nothing"):
            visit.page.goto(server + path)
            assert not is_wide(visit.page), path
            assert visit.page.evaluate(LOW) == [], path
        ground = visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        red = int(re.findall(r"\d+", ground)[0])
        assert (red < 60) is dark


def test_a_person_signs_in_with_the_token_and_sees_the_page_that_was_asked_for(
    browser: Browser, redis_server: EmbeddedRedis, submit_job: Callable[..., str], tmp_path: Path
) -> None:
    job_id = submit_job(2)
    listener = listen("127.0.0.1", 0)
    site = site_at(redis_server.url, Output(tmp_path), TOKEN)
    with serving(listener, lambda: site), visiting(browser) as visit:
        visit.page.goto(f"{listener.url}/jobs/{job_id}")
        visit.page.get_by_label("Token").fill("a wrong one")
        visit.page.keyboard.press("Enter")
        visit.page.get_by_text("This is not the token").wait_for()
        visit.page.get_by_label("Token").fill(TOKEN)
        visit.page.get_by_role("button", name="Sign in").click()
        visit.page.wait_for_url(f"{listener.url}/jobs/{job_id}")
        visit.page.get_by_role("heading", name=job_id).wait_for()


def test_the_address_that_a_run_tells_leads_to_its_pictures(
    browser: Browser, farm: Farm, wait_until: WaitUntil
) -> None:
    process = farm.python().popen(
        [BIN / "imagemill", "run", farm.manifest(2_000), "--gpus", "none"],
        env=farm.environment(instant_seconds=0.4), cwd=farm.folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        address = process.stderr.readline().removeprefix("pictures: ").strip()
        # The pages end with the run: it must last for as long as a visitor takes.
        [job] = farm.ledger.jobs()
        wait_until(lambda: farm.status(job.job_id).done, "pictures are there", progress=farm.ledger.workers)
        farm.ledger.control(job.job_id, "pause")
        with visiting(browser) as visit:
            visit.page.goto(address)
            assert "token" not in visit.page.url
            visit.page.get_by_role("link", name="See the pictures").click()
            visit.page.wait_for_function("() => [...document.images].some((one) => one.naturalWidth > 0)")
            visit.check(address)
    finally:
        process.terminate()
        out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 130, (out, err)
