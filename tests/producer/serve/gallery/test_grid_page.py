"""The page of a sweep: pictures along axes, or why there are none."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from serve_output import make_output
from starlette.testclient import TestClient

from jobs.output.output import Output
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.line import START, Cursor
from producer.serve.gallery.sweep import MOST, read_sweep
from tests.page_text import words
from tests.waiting import WaitUntil

Rendered = Callable[..., Output]
PagesOf = Callable[[Output], tuple[TestClient, str]]


def test_a_grid_has_what_was_swept_along_its_axes(rendered: Rendered, pages_of: PagesOf) -> None:
    sweep = {"guidance_scale": [1.0, 3.0, 7.5], "scheduler": ["DDIM", "Euler"]}
    prompts = ["a fox", "a hare"]
    client, base = pages_of(rendered(12, prompts=prompts, sweep=sweep))
    page = client.get(f"{base}/grid").text
    said = words(page)
    assert "scheduler ↓ · guidance_scale → 1 3 7.5 DDIM Euler" in said
    assert "page 1 of 2" in said
    assert re.findall(rf'<td><a href="{base}/([^"]*)"', page) == ["0/0", "0/2", "1/0", "0/1", "0/3", "1/1"]
    other = client.get(f"{base}/grid?x=prompt&y=guidance_scale&page=1").text
    assert "guidance_scale ↓ · prompt → a fox a hare 1 3 7.5" in words(other)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "x=guidance",
            "x = guidance: these pictures do not differ in it; they differ in guidance_scale",
        ),
        ("x=prompt&y=<b>", "y = <b>: these pictures do not differ in it"),
        ("x=prompt&y=prompt", "x and y are both prompt: choose two"),
    ],
)
def test_a_grid_along_what_is_no_axis_is_told(
    asked: str, said: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    sweep = {"guidance_scale": [1.0, 3.0]}
    client, base = pages_of(rendered(4, prompts=["a fox", "a hare"], sweep=sweep))
    page = client.get(f"{base}/grid?{asked}").text
    alarm = re.search(r'<p class="alarm">([^<]*)</p>', page)
    assert alarm is not None
    assert html.unescape(alarm[1]).startswith(said)
    assert '<table class="grid">' not in page
    assert '<table class="grid">' in client.get(f"{base}/grid?x=&y=prompt").text


def test_a_grid_of_one_setting_stands_in_a_row(rendered: Rendered, pages_of: PagesOf) -> None:
    client, base = pages_of(rendered(3, prompts=["a fox"], sweep={"num_inference_steps": [1, 2, 3]}))
    page = client.get(f"{base}/grid").text
    assert re.findall(rf'<td><a href="{base}/([^"]*)"', page) == ["0/0", "0/1", "0/2"]


def test_pictures_that_differ_in_nothing_have_no_axes(rendered: Rendered, pages_of: PagesOf) -> None:
    client, base = pages_of(rendered(1))
    assert "differ in nothing" in words(client.get(f"{base}/grid").text)


def test_a_damaged_shard_hides_no_other_in_a_grid(rendered: Rendered, pages_of: PagesOf) -> None:
    output = rendered(12, prompts=["a fox", "a hare"], sweep={"num_inference_steps": [1, 2, 3, 4, 5, 6]})
    output.metadata_file(1).write_text("no JSON\n")
    client, base = pages_of(output)
    page = client.get(f"{base}/grid?x=num_inference_steps&y=prompt").text
    assert re.findall(rf'<td><a href="{base}/([0-9])/', page) == ["0"] * 4 + ["2"] * 4
    assert "00001/metadata.jsonl:1" in words(page)


def test_a_grid_without_pictures_says_so(
    rendered: Rendered, pages_of: PagesOf, submit_job: Callable[..., str], wait_until: WaitUntil
) -> None:
    output = rendered(0, prompts=["a fox"])
    client, base = pages_of(output)
    said = words(client.get(f"{base}/grid").text)
    assert "There are no pictures yet." in said and "A job here is not finished" not in said
    assert "differ" not in said and "0 pictures" not in said
    assert "There are no pictures from here on." in words(client.get(f"{base}/grid?shard=3").text)
    submit_job(output=output.label)
    wait_until(
        lambda: "A job here is not finished: load this page again" in words(client.get(f"{base}/grid").text),
        "the ledger is read again",
    )


@pytest.mark.parametrize(("shard_size", "next"), [(1_250, Cursor(0, MOST)), (250, Cursor(4, 0))])
def test_a_grid_is_bounded_however_much_time_there_is(
    shard_size: int, next: Cursor, gallery: Callable[[Output], GalleryOutput], tmp_path: Path
) -> None:
    output = gallery(make_output(tmp_path / "many", MOST + 250, shard_size, layout="files"))
    sweep = read_sweep(output, START, clock=lambda: 0.0)
    assert (len(sweep.records), sweep.next) == (MOST, next)
    rest = read_sweep(output, next, clock=lambda: 0.0)
    assert (len(rest.records), rest.next) == (250, None)
