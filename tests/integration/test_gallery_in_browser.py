"""Pictures in Chromium: they come as one scrolls, and are found, by keyboard and on a phone, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from playwright.sync_api import Browser, Page
from serve_output import RARE, make_output

from jobs.output.output import Output
from producer.serve.opened import site_at
from producer.serve.outputs import key_of
from producer.serve.server import listen, serving
from tests.browser import BACKWARDS, LOW, TURNED, Visit, chromium, visiting
from tests.rendered_output import rendered
from tests.waiting import WaitUntil

__all__ = ["rendered"]

IMAGES, SHARD = 900, 50
HOSTILE = """<img src=x onerror="window.hit=1"><script>window.hit=1</script> {{7*7}}"""
NO_REDIS = "redis://127.0.0.1:1/0"
TILES = "() => document.querySelectorAll('.tile').length"
BROKEN = "() => [...document.querySelectorAll('.button, button')].some((one) => one.offsetHeight > 60)"
ATTRIBUTES = """() => [...document.querySelectorAll("*")].flatMap((one) =>
  ["alt", "title", "aria-label"].map((name) => one.getAttribute(name) || ""))"""
FOCUSED = "() => document.activeElement.id"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an output's pages: 900 images in tars, one of which has a hostile prompt."""
    output = make_output(tmp_path_factory.mktemp("many") / "out", IMAGES, SHARD, {3: HOSTILE, 777: RARE})
    listener = listen("127.0.0.1", 0)
    with serving(listener, lambda: site_at(NO_REDIS, output, None)):
        yield f"{listener.url}/outputs/{key_of(output.label)}"


def shown(page: Page) -> int:
    """How many tiles the page has."""
    number: int = page.evaluate(TILES)
    return number


def check(visit: Visit, server: str) -> None:
    """Nothing ran, and nothing was asked for elsewhere."""
    assert visit.page.evaluate("() => window.hit === undefined")
    visit.check(server)


def test_pictures_come_as_one_scrolls_and_those_far_away_are_let_go_and_come_back(
    browser: Browser, server: str, wait_until: WaitUntil
) -> None:
    with visiting(browser) as visit:
        page = visit.page
        page.goto(server)
        first = page.locator(".tile").first.inner_text()
        assert shown(page) == 60
        most = 0

        def at_the_end() -> bool:
            nonlocal most
            page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
            most = max(most, shown(page))
            return page.get_by_text("The end.").count() == 1

        wait_until(at_the_end, "the end is reached", progress=lambda: len(visit.asked))
        wait_until(lambda: shown(page) <= 60 * 10, "far pages are let go")
        assert page.locator(".tile").last.get_by_text("number 899").count() == 1
        assert most < IMAGES
        page.evaluate("() => window.scrollTo(0, 0)")
        wait_until(
            lambda: page.locator(".piece").first.locator(".tile").count() == 60,
            "they are there again",
        )
        assert page.locator(".tile").first.inner_text() == first
        check(visit, server)


def test_a_search_finds_what_is_far_away_and_says_how_far_it_came(browser: Browser, server: str) -> None:
    with visiting(browser) as visit:
        page = visit.page
        page.goto(server)
        page.get_by_label("Part of the prompt").fill(RARE.upper())
        page.keyboard.press("Enter")
        page.locator(".tile").get_by_text(RARE).wait_for()
        page.get_by_text("The end.").wait_for()
        assert shown(page) == 1
        page.get_by_role("link", name="Show everything").click()
        page.locator(".tile").nth(59).wait_for()
        page.get_by_text("More conditions").click()
        page.get_by_label("Seed").fill("777")
        page.keyboard.press("Enter")
        page.locator(".tile").get_by_text(RARE).wait_for()
        check(visit, server)


def test_arrows_go_through_what_a_search_found_and_escape_comes_back_to_it(
    browser: Browser, server: str
) -> None:
    with visiting(browser) as visit:
        page = visit.page
        page.goto(f"{server}?column=kind&value=k3&text=fox")
        page.locator(".tile a").nth(1).focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="a fox, number 17, in the snow").wait_for()
        for key, number in (("ArrowRight", 24), ("ArrowRight", 31), ("ArrowLeft", 24)):
            page.locator("main a[rel=next]").wait_for()
            page.wait_for_load_state()  # a key counts once the page's script runs
            page.keyboard.press(key)
            page.get_by_role("heading", name=f"a fox, number {number}, in the snow").wait_for()
        page.wait_for_load_state()
        page.keyboard.press("Escape")
        page.wait_for_function("() => document.activeElement.id === 'i0-24'")
        assert "column=kind&value=k3" in page.url
        check(visit, server)


def test_a_mistyped_column_is_told_under_the_form_that_keeps_it(browser: Browser, server: str) -> None:
    with visiting(browser) as visit:
        page = visit.page
        page.goto(server)
        page.get_by_text("More conditions").click()
        page.get_by_label("Column").fill("knd")
        page.get_by_label("equals").fill("k3")
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text(
            "column = knd: no image here has it (the nearest is kind)"
        ).wait_for()
        page.get_by_label("Column").fill("kind")
        page.keyboard.press("Enter")
        page.locator(".tile").get_by_text("number 10,").wait_for()
        assert [one for one in visit.troubles if "400 (Bad Request)" not in one] == []


def test_strangers_text_is_text(browser: Browser, server: str) -> None:
    with visiting(browser) as visit:
        for path, place in (("", ".tile .says"), ("/0/3", "h1"), ("/grid", "body")):
            visit.page.goto(server + path)
            visit.page.wait_for_load_state("networkidle")
            if path != "/grid":
                assert HOSTILE in visit.page.locator(place).all_inner_texts()
        check(visit, server)


def test_arrows_go_from_picture_to_picture_and_escape_comes_back(browser: Browser, server: str) -> None:
    with visiting(browser) as visit:
        page = visit.page
        page.goto(server)
        page.keyboard.press("ArrowRight")
        assert page.evaluate(FOCUSED) == "i0-0"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        there = str(page.evaluate(FOCUSED))
        assert there not in ("i0-1", "i0-2")
        page.keyboard.press("ArrowUp")
        assert page.evaluate(FOCUSED) == "i0-1"
        page.keyboard.press("Enter")
        page.wait_for_url(f"{server}/0/1")
        page.keyboard.press("ArrowRight")
        page.wait_for_url(f"{server}/0/2")
        page.keyboard.press("ArrowLeft")
        page.wait_for_url(f"{server}/0/1")
        page.keyboard.press("Escape")
        page.wait_for_url(f"{server}?shard=0&position=0#i0-1")
        page.wait_for_function("() => document.activeElement.id === 'i0-1'")
        check(visit, server)


def test_the_manifest_of_a_picture_is_copied_by_a_button(browser: Browser, server: str) -> None:
    with visiting(browser) as visit:
        page = visit.page
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto(f"{server}/2/5")
        page.get_by_role("region", name="As a manifest").get_by_role("button").click()
        page.get_by_text("Copied").wait_for()
        copied = page.evaluate("() => navigator.clipboard.readText()")
        assert copied == page.locator("#manifest").text_content()
        assert "prompt: a fox, number 105, in the snow" in copied
        check(visit, server)


def test_the_slider_goes_to_any_part_and_earlier_pictures_come_on_demand(
    browser: Browser, server: str
) -> None:
    with visiting(browser) as visit:
        page = visit.page
        page.goto(server)
        slider = page.get_by_role("slider")
        slider.focus()
        page.keyboard.press("End")
        page.get_by_text("%").wait_for()
        page.keyboard.press("Enter")
        page.wait_for_url(f"{server}?shard=17")
        page.get_by_text("number 850,").wait_for()
        page.get_by_role("link", name="Earlier pictures").click()
        page.get_by_text("number 849,").wait_for()
        assert page.get_by_text("number 790,").count() == 1
        check(visit, server)


def test_on_a_phone_a_grid_shows_two_columns_and_its_corner_is_whole(
    browser: Browser, rendered: Callable[..., Output]
) -> None:
    sweep = {"guidance_scale": [1, 3, 5, 7.5], "scheduler": ["DDIM", "Euler"]}
    output = rendered(8, prompts=["a fox"], sweep=sweep)
    listener = listen("127.0.0.1", 0)
    with (
        serving(listener, lambda: site_at(NO_REDIS, output, None)),
        visiting(browser, width=390, height=844) as visit,
    ):
        page = visit.page
        page.goto(f"{listener.url}/outputs/{key_of(output.label)}/grid")
        corner, columns = page.locator(".corner"), page.locator("thead th")
        box = corner.bounding_box()
        assert box is not None and box["width"] <= 7 * 16 and box["height"] < 100
        assert corner.evaluate("(one) => one.scrollWidth <= one.clientWidth")
        second = columns.nth(1).bounding_box()
        assert second is not None and second["x"] + second["width"] <= 390
        check(visit, listener.url)


def test_marks_that_turn_a_text_around_turn_nothing_on_the_pages_of_pictures(
    browser: Browser, rendered: Callable[..., Output], tmp_path: Path
) -> None:
    prompts = [
        {"prompt": f"{TURNED} {n}, in snow", "columns": {f"my {TURNED}": f"{TURNED} {n}"}} for n in range(6)
    ]
    output = rendered(6, failed=(2,), prompts=prompts, place=str(tmp_path / f"{TURNED} x"))
    failures = output.failures_file(0)
    failures.write_text(failures.read_text().replace('"black"', json.dumps(f"{TURNED} and black")))
    lines = output.metadata_file(1).read_text().splitlines()
    output.metadata_file(1).write_text(f"{lines[0]}\nno JSON\n")
    asked = {"text": f"{TURNED} 1", "column": f"my {TURNED}", "value": TURNED}
    query = urlencode(asked)
    listener = listen("127.0.0.1", 0)
    with serving(listener, lambda: site_at(NO_REDIS, output, None)), visiting(browser) as visit:
        page, base = visit.page, f"{listener.url}/outputs/{key_of(output.label)}"
        grid = f"/grid?{urlencode({'x': f'my {TURNED}', 'y': 'seed'})}"
        for path in ("", f"?{query}", f"?column={quote(TURNED)}", "?failed=1", "/0/0", "/0/2", "/grid", grid):
            page.goto(base + path)
            page.wait_for_load_state("networkidle")
            assert page.locator(".turns").count(), path
            assert page.evaluate(BACKWARDS) == [], path
        page.goto(f"{base}?{query}")
        for name, value in asked.items():  # a form sends back what was written
            assert page.locator(f"#{name}").input_value() == value
        page.goto(f"{base}/0/0")
        for attribute in page.evaluate(ATTRIBUTES):
            assert not set(attribute) & set(TURNED) - set("ab")
        assert not set(page.title()) & set(TURNED) - set("ab")


def test_a_command_with_a_mark_that_turns_a_text_around_is_copied_as_it_is(
    browser: Browser, rendered: Callable[..., Output]
) -> None:
    output = rendered(1, layout="webdataset", prompts=[f"{TURNED} in snow"])
    listener = listen("127.0.0.1", 0)
    with serving(listener, lambda: site_at(NO_REDIS, output, None)), visiting(browser) as visit:
        page = visit.page
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto(f"{listener.url}/outputs/{key_of(output.label)}/0/0")
        page.get_by_role("region", name="Render it again").get_by_role("button").click()
        page.get_by_text("Copied").wait_for()
        assert f'"prompt": "{TURNED} in snow"' in page.evaluate("() => navigator.clipboard.readText()")
        page.locator("#command").select_text()  # what Ctrl-C takes
        assert f'"prompt": "{TURNED} in snow"' in page.evaluate("() => getSelection().toString()")
        assert page.evaluate(BACKWARDS) == []


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(dark: bool, browser: Browser, server: str) -> None:
    with visiting(browser, width=340, height=700, dark=dark) as visit:
        paths = ("", "?failed=1", "?column=kind&value=k1", "?column=knd", "/0/3", "/4/5?text=fox", "/grid")
        for path in paths:
            visit.page.goto(server + path)
            visit.page.wait_for_load_state("networkidle")
            assert not visit.page.evaluate("() => document.documentElement.scrollWidth > innerWidth"), path
            assert visit.page.evaluate(LOW) == [], path
            # No word of a button is broken.
            assert not visit.page.evaluate(BROKEN), path
        told = [one for one in visit.troubles if "400 (Bad Request)" not in one]  # ?column=knd
        visit.troubles[:] = told
        check(visit, server)
