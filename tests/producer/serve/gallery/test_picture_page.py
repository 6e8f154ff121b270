"""The page of one picture: its settings, command and manifest, and its neighbours."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient

from jobs.output.output import Output
from jobs.request import IMAGE_SETTINGS
from jobs.settings import Settings
from producer.plan.plan import plan_submission
from producer.requests.prepared import prepare
from tests.page_text import block, tiles, words

Rendered = Callable[..., Output]
PagesOf = Callable[[Output], tuple[TestClient, str]]
LAYOUTS = ("files", "webdataset")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_is_shown_with_every_column_and_its_neighbours(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    prompts = [{"prompt": f"fox {n}", "columns": {"kind": f"k{n}"}} for n in range(9)]
    output = rendered(9, failed=(3,), layout=layout, prompts=prompts)
    client, base = pages_of(output)
    page = client.get(f"{base}/1/0").text
    record = next(output.records(1))
    said = words(page)
    for name, value in record.items():
        shown = {"text": "prompt"}.get(name, name).removeprefix("rendered_")
        assert shown in said, name
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        assert value in (None, "") or text in said or isinstance(value, float), name
    links = dict(re.findall(r'rel="(prev|next)" href="([^"]*)"', page))
    assert links == {"prev": f"{base}/0/2", "next": f"{base}/1/1"}
    assert 'rel="prev"' not in client.get(f"{base}/0/0").text
    assert 'rel="next"' not in client.get(f"{base}/2/0").text


def test_settings_that_say_something_come_first_and_the_others_are_folded(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    prompts = [{"prompt": "a fox", "negative_prompt": "fog", "columns": {"mine": None}}]
    client, base = pages_of(rendered(1, prompts=prompts, image_format="webp"))
    page = client.get(f"{base}/0/0").text
    before, _, after = page.partition("<h2>Settings</h2>")[2].partition("<h2>Columns</h2>")
    shown, _, folded = before.partition("<details>")
    first = [
        "negative_prompt", "height", "width", "num_inference_steps", "guidance_scale", "scheduler", "seed",
        "model", "revision", "image_format",
    ]  # fmt: skip
    assert re.findall(r"<dt>([^<]*)</dt>", shown) == first
    rest = [name for name in IMAGE_SETTINGS if name not in first and name != "prompt"]
    assert re.findall(r"<dt>([^<]*)</dt>", folded) == rest
    assert f"{len(rest)} at their defaults" in words(folded)
    assert "<details>" not in after
    assert "mine" in words(after)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_neighbours_are_those_that_the_filter_takes_which_led_to_a_picture(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    prompts = [{"prompt": f"{'hare' if n % 3 else 'fox'} {n} &", "columns": {"kind": "a"}} for n in range(17)]
    client, base = pages_of(rendered(17, failed=(4, 5), layout=layout, prompts=prompts))
    asks = "?text=FOX&column=kind&value=a"
    first = html.unescape(tiles(client.get(base + asks).text)[0])
    assert first == f"{base}/0/0?text=FOX&column=kind&value=a"
    found, place = [first], first
    while links := re.findall(r'rel="next" href="([^"]*)"', client.get(place).text):
        found.append(place := html.unescape(links[0]))
    assert [one.partition("?")[0] for one in found] == [f"{base}/{n // 4}/{n % 4}" for n in range(0, 17, 3)]
    back = [place]
    while links := re.findall(r'rel="prev" href="([^"]*)"', client.get(place).text):
        back.append(place := html.unescape(links[0]))
    assert back == found[::-1]
    up = html.unescape(re.findall(r'rel="up" href="([^"]*)"', client.get(found[3]).text)[0])
    assert up == f"{base}?shard=2&position=0&text=FOX&column=kind&value=a#i2-1"
    assert html.unescape(tiles(client.get(up.partition("#")[0]).text)[0]) == found[3]
    failed = client.get(f"{base}/1/0?failed=1").text
    assert re.findall(r'rel="(?:next|prev)" href="([^"]*)"', failed) == [f"{base}/1/1?failed=1"]


@pytest.mark.parametrize("way", ["before", "after"])
def test_a_neighbour_that_is_far_is_looked_for_in_pieces(
    way: str, rendered: Rendered, pages_of: PagesOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.serve.gallery.picture_page.BUDGET", 0.0)
    client, base = pages_of(rendered(40))
    place = f"{base}/0/2?text=fox+20" if way == "after" else f"{base}/9/3?text=fox+1%2C"
    page = client.get(place).text
    pieces = 0
    while further := re.search(rf'hx-get="([^"]*way={way}[^"]*)" hx-trigger="load"', page):
        page = client.get(html.unescape(further[1])).text
        pieces += 1
    there = f"{base}/5/0?text=fox+20" if way == "after" else f"{base}/0/1?text=fox+1%2C"
    assert re.findall(r'rel="(?:next|prev)" href="([^"]*)"', page) == [there]
    assert pieces > 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_manifest_of_a_picture_asks_for_that_picture(
    layout: str, rendered: Rendered, pages_of: PagesOf, tmp_path: Path
) -> None:
    output = rendered(6, layout=layout)
    client, base = pages_of(output)
    text = block(client.get(f"{base}/1/1").text, "manifest")
    file = tmp_path / "again.yaml"
    file.write_text(text + f"output: {output.label}\n", "utf-8")
    assert yaml.safe_load(text)["model"] == "instant"
    plan = plan_submission(prepare(file, Settings()), Settings())
    assert (plan.survey.held, plan.new) == (1, 0)


def test_a_manifest_says_which_number_of_slots_gives_the_same_bytes(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(3)
    file = output.metadata_file(0)
    [first, second, third] = [json.loads(line) for line in file.read_text().splitlines()]
    second["rendered_mode"] = "alone"  # each of its forwards is of one image
    third["rendered_rows"] = "many"
    file.write_text("".join(f"{json.dumps(one)}\n" for one in (first, second, third)))
    client, base = pages_of(output)
    said = [words(client.get(f"{base}/0/{place}").text) for place in range(3)]
    assert "The same bytes take IMAGEMILL_BATCH_SIZE=16 and a device of the same kind." in said[0]
    assert all("IMAGEMILL_BATCH_SIZE" not in one for one in said[1:])


def test_the_command_of_a_picture_names_its_file_or_its_request(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(2, layout="files")
    client, base = pages_of(output)
    page = client.get(f"{base}/0/1").text
    assert block(page, "command") == "imagemill-worker render --from 00000/000000001.png"
    assert f"Render it again Copy Run it in {output.path} imagemill-worker render" in words(page)


def test_the_command_of_a_picture_in_a_tar_has_the_whole_request(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    client, base = pages_of(rendered(2, layout="webdataset"))
    command = block(client.get(f"{base}/0/1").text, "command")
    assert command.startswith("imagemill-worker --batch-size 16 render --request '{")
    assert '"prompt": "fox 1, été 🦊"' in command


def test_a_long_prompt_is_whole_on_its_pictures_page_and_begins_on_a_tile(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    long = "a fox in the snow, " * 1000
    client, base = pages_of(rendered(2, failed=(1,), prompts=[long, long + "again"]))
    gallery = client.get(base).text
    assert gallery.count("a fox in the snow, ") == 2 * 15  # as a text, and in place of the picture
    assert long[:299] + "…" in gallery
    assert client.get(f"{base}?failed=1").text.count("a fox in the snow, ") == 15
    for place in ("/0/0", "/0/1"):
        page = client.get(base + place).text
        heading = re.search(r'<h1 class="prompt">([^<]*)</h1>', page)
        assert heading is not None and heading[1].startswith(long)
        facts = page.partition('<div class="card facts">')[2]
        assert "image_id" in facts and long not in facts


def test_what_failed_is_shown_with_its_reason_and_command(rendered: Rendered, pages_of: PagesOf) -> None:
    client, base = pages_of(rendered(4, failed=(2,)))
    page = client.get(f"{base}/0/2").text
    assert "This image failed. black" in words(page)
    assert block(page, "command") == "render it"
    assert client.get(f"{base}/0/2/file").status_code == 404


@pytest.mark.parametrize("said", ["", "[1]", "[{}]", "{", '{"a": 1}'])
@pytest.mark.parametrize("setting", ["loras", "controlnet", "textual_inversions", "ip_adapter"])
def test_a_record_that_no_command_can_say_is_shown_with_the_reason(
    setting: str, said: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(2)
    file = output.path / "00000" / "metadata.jsonl"
    records = [json.loads(line) | {setting: said, "id": [1]} for line in file.read_text().splitlines()]
    file.write_text("".join(f"{json.dumps(one)}\n" for one in records))
    client, base = pages_of(output)
    shown = client.get(f"{base}/0/1")
    assert shown.status_code == 200
    assert "its record is not one that a" in words(shown.text)
    assert client.get(f"{base}/grid?x=prompt").status_code == 200
