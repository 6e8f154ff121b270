"""The pages of an output as a browser gets them: what they show is what the output holds, as text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient

from jobs.ledger.ledger import Ledger
from jobs.output.output import Output
from jobs.request import IMAGE_SETTINGS
from jobs.settings import Settings
from producer.plan.plan import plan_submission
from producer.requests.prepared import prepare
from tests.waiting import WaitUntil

Rendered = Callable[..., Output]
PagesOf = Callable[[Output], tuple[TestClient, str]]
HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(2)> {{ 7*7 }} ' &amp; \u202e"""
LAYOUTS = ("files", "webdataset")


def words(page: str) -> str:
    """The text of a page, with single spaces."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


def tiles(page: str) -> list[str]:
    """The addresses of the images on a page."""
    return re.findall(r'<li class="tile[^"]*"><a id="[^"]*" href="([^"]*)"', page)


def block(page: str, name: str) -> str:
    """The text that can be copied under a name."""
    found = re.search(rf'<pre id="{name}"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pieces_lead_from_the_first_image_to_the_last(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    client, base = pages_of(rendered(14, failed=(5,), layout=layout))
    page = client.get(f"{base}?count=4").text
    found = tiles(page)
    while further := re.search(r'class="further" hx-get="([^"]*)"', page):
        page = client.get(html.unescape(further[1]) + "&count=4").text
        found += tiles(page)
        assert "Earlier pictures" not in page, "they are above"
    assert found == [f"{base}/{place // 4}/{place % 4}" for place in range(14) if place != 5]
    assert "The end." in page


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_picture_of_a_page_and_its_thumbnail_are_there(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(5, layout=layout)
    client, base = pages_of(output)
    for link in re.findall(r'src="([^"]*)"', client.get(base).text.partition("<main")[2]):
        small = client.get(link)
        assert small.headers["content-type"] == "image/png"
        assert "immutable" in small.headers["cache-control"]
        again = client.get(link, headers={"If-None-Match": small.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    whole = client.get(f"{base}/1/0/file")
    [(name, data)] = output.pictures(1, {f"{output.stored(1).key(0)}.png"})
    assert (whole.content, whole.headers["content-type"]) == (data, "image/png")
    assert f'filename="{name}"' in whole.headers["content-disposition"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_browser_that_has_a_picture_is_sent_no_byte_of_it_again(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    client, base = pages_of(rendered(2, layout=layout))
    small = html.unescape(re.findall(rf'src="({base}/0/0/small[^"]*)"', client.get(base).text)[0])
    for path in (f"{base}/0/0/file", small):
        first = client.get(path)
        tag = first.headers["etag"]
        for held in (tag, f"W/{tag}", f'"other", {tag}', f'W/"other" ,W/{tag}', "*"):
            again = client.get(path, headers={"If-None-Match": held})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), held
            assert again.headers["cache-control"] == first.headers["cache-control"]
        for other in ('"other"', tag.strip('"'), ""):
            assert client.get(path, headers={"If-None-Match": other}).content == first.content, other
    assert client.get(f"{base}/0/1/file").headers["etag"] != client.get(f"{base}/0/0/file").headers["etag"]


def test_strangers_text_is_text_on_every_page(rendered: Rendered, pages_of: PagesOf) -> None:
    prompts = [{"prompt": HOSTILE, "columns": {"mine": HOSTILE}, "id": "one"}, {"prompt": HOSTILE, "seed": 3}]
    client, base = pages_of(rendered(2, failed=(1,), prompts=prompts))
    paths = ["", "/0/0", "/0/1", "/grid", "?failed=1", f"?text={HOSTILE[:8]}", "?column=mine&value=<b>"]
    for path in paths:
        page = client.get(base + path).text
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path
        assert " 49 " not in words(page), path
    for path in ("", "/0/0", "/0/1", "?failed=1"):
        assert " ".join(HOSTILE.split()) in words(client.get(base + path).text), path


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
def test_earlier_pictures_of_a_search_are_those_that_it_finds(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    client, base = pages_of(rendered(23, layout=layout))
    page = client.get(f"{base}?shard=5&position=0&text=fox+1").text
    earlier = re.search(r'hx-get="([^"]*before=1[^"]*)"', page)
    assert earlier is not None
    found = tiles(client.get(html.unescape(earlier[1])).text)
    places = [divmod(n, 4) for n in (1, *range(10, 20))]
    assert found == [f"{base}/{shard}/{position}?text=fox+1" for shard, position in places]


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


def test_the_command_of_a_picture_names_its_file_or_its_request(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    client, base = pages_of(rendered(2, layout="files"))
    command = block(client.get(f"{base}/0/1").text, "command")
    assert command == "imagemill-worker render --from 00000/000000001.png"


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_thumbnail_is_kept_only_where_the_picture_lies_that_its_address_says(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(2, layout=layout)
    client, base = pages_of(output)
    first, second = (record["image_id"] for record in output.records(0))
    other = client.get(f"{base}/0/0/small?v={second}")  # as after a rendering in the place of another
    assert (other.headers["cache-control"], "etag" in other.headers) == ("no-store", False)
    there = client.get(f"{base}/0/0/small?v={first}")
    assert "immutable" in there.headers["cache-control"]
    assert there.content == other.content != client.get(f"{base}/0/1/small?v={second}").content


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_picture_has_a_placeholder_and_its_page(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(2, layout=layout)
    [(_, data)] = output.pictures(0, {"000000001.png"})
    for file in (output.path / "00000.tar", output.path / "00000" / "000000001.png"):
        if file.exists():
            file.write_bytes(file.read_bytes().replace(data, b"x" * len(data)))
    client, base = pages_of(output)
    _, there = output.records(0)
    for path in (f"small?v={there['image_id']}", "file"):
        shown = client.get(f"{base}/0/1/{path}")
        assert (shown.status_code, shown.headers["content-type"]) == (200, "image/svg+xml")
        assert "immutable" not in shown.headers["cache-control"]
    assert client.get(f"{base}/0/1").status_code == 200
    assert client.get(f"{base}/0/0/small").headers["content-type"] == "image/png"


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


@pytest.mark.parametrize(
    "path",
    [
        "/outputs/0123456789abcdef", "/outputs/..%2f..%2fetc", "BASE/9/9", "BASE/0/99", "BASE/-1/0",
        pytest.param("BASE/" + "9" * 5000 + "/0", id="many digits"), "BASE/0/10000", "BASE/0/0/other",
        "BASE/x/0", "BASE/..%2f/0/file", "BASE?shard=x", "BASE?position=-1", "BASE/0/9/file", "BASE/9/0/file",
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_found(path: str, rendered: Rendered, pages_of: PagesOf) -> None:
    client, base = pages_of(rendered(2))
    assert client.get(path.replace("BASE", base)).status_code == 404


def test_an_output_that_is_unknown_is_told_in_words(rendered: Rendered, pages_of: PagesOf) -> None:
    client, _ = pages_of(rendered(1))
    page = client.get("/outputs/0123456789abcdef").text
    assert "no job in Redis writes it, and <code>imagemill serve</code> was not given it" in page


def test_a_condition_that_is_none_is_told(rendered: Rendered, pages_of: PagesOf) -> None:
    client, base = pages_of(rendered(2))
    answer = client.get(f"{base}?seed=many")
    assert answer.status_code == 400
    assert "seed = many: must be a whole number" in words(answer.text)
    assert 'name="seed" inputmode="numeric" pattern="[0-9]*" value="many"' in answer.text
    answer = client.get(f"{base}?column=<b>&value=fox")
    assert answer.status_code == 400
    assert "column = <b>: no image here has it" in words(html.unescape(answer.text).replace("<b>", "&lt;b>"))
    assert tiles(answer.text) == []
    twice = client.get(f"{base}?text=fox&text=hare&column=a&column=b")
    assert twice.status_code == 400
    assert "text: is given twice" in words(twice.text)
    for path in ("/page?column=knd&value=1", "/0/0?column=knd&value=1", "/0/0?seed=x", "/bar?seed=x"):
        assert client.get(base + path).status_code == 400, path
    assert client.get(f"{base}/neighbour?way=after&column=knd&value=1").status_code == 400
    assert "Nothing was found." in words(client.get(f"{base}?text=wolf").text)


@pytest.mark.parametrize(
    ("text", "end"), [("wolf", "Nothing was found."), ("fox 1,", "The end."), ("fox 39", "The end.")]
)
def test_a_search_of_many_pieces_ends_with_whether_anything_was_found(
    text: str, end: str, rendered: Rendered, pages_of: PagesOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.serve.gallery.gallery_pages.BUDGET", 0.0)
    client, base = pages_of(rendered(40))
    page, pieces = client.get(f"{base}?text={text}").text, 1
    while further := re.search(r'class="further" hx-get="([^"]*)"', page):
        page, pieces = client.get(html.unescape(further[1])).text, pieces + 1
    said = re.search(r'<p class="further quiet end">([^<]*)<', page)
    assert (said and said[1], pieces > 3) == (end, True)
    # Of what comes before this place it says nothing.
    assert "Nothing was found." not in client.get(f"{base}?shard=5&text={text}").text


def test_the_bar_says_how_much_there_is_and_keeps_the_conditions(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    client, base = pages_of(rendered(10))
    bar = client.get(f"{base}/bar?shard=1&text=fox%26").text
    assert "10 pictures in the whole output 3 shards" in words(bar)
    assert "10 pictures 3 shards" in words(client.get(f"{base}/bar?shard=1").text)
    assert 'max="2" value="1"' in bar
    assert '<input type="hidden" name="text" value="fox&amp;">' in bar


def test_while_a_job_renders_its_new_pictures_are_told_and_come(
    rendered: Rendered, pages_of: PagesOf, submit_job: Callable[..., str], wait_until: WaitUntil
) -> None:
    output = rendered(8)
    client, base = pages_of(output)
    assert "New pictures appear here." not in client.get(base).text
    submit_job(output=output.label)
    wait_until(lambda: "New pictures appear here." in client.get(base).text, "the ledger is read again")
    page = client.get(base).text
    bar = client.get(f"{base}/bar").text
    assert "A job renders here." in bar
    tail, new = (
        html.unescape(re.search(rf'hx-get="([^"]*/{name}\?[^"]*)" hx-trigger="every', text)[1])  # type: ignore[index]
        for name, text in (("page", page), ("new", bar))
    )
    assert tiles(client.get(tail).text) == []
    found = client.get(f"{base}?text=fox+3%26").text
    assert "Nothing was found so far: a job renders here. Search again" in words(found)
    assert f'<a href="{base}?text=fox+3%26">Search again</a>' in found
    (output.path / "00001").rename(output.path / "00002")
    moved = (output.path / "00002" / "metadata.jsonl").read_text("utf-8").replace('"00001', '"00002')
    (output.path / "00002" / "metadata.jsonl").write_text(moved, "utf-8")
    assert tiles(client.get(tail).text) == [f"{base}/2/{place}" for place in range(4)]
    assert "A job renders here." in client.get(new).text


def test_pictures_lead_to_their_job_while_the_ledger_has_it(
    rendered: Rendered,
    pages_of: PagesOf,
    submit_job: Callable[..., str],
    ledger: Ledger,
    wait_until: WaitUntil,
) -> None:
    output = rendered(4, failed=(3,))
    client, base = pages_of(output)

    def job_of(path: str) -> list[str]:
        return re.findall(r'id="to-job" href="([^"]*)"', client.get(base + path).text)

    assert [job_of(path) for path in ("", "/0/0", "/0/3")] == [[], [], []]
    submit_job(name="hares", output="/data/hares")
    first = submit_job(name="foxes", output=output.label)
    ledger.client.hset(f"imagemill:job:{first}", mapping={"state": "finished", "outcome": "complete"})
    second = submit_job(name="foxes", output=output.label)
    assert (first, second) == ("foxes-1", "foxes-2")
    wait_until(lambda: job_of("") != [], "the ledger is read again")
    assert job_of("") == [f"/jobs/{second}"]  # the newest
    assert job_of("/0/0") == job_of("/0/3") == [f"/jobs/{first}"]  # the one that rendered it


def test_shards_that_others_overtook_appear_behind_them_once(
    rendered: Rendered, pages_of: PagesOf, submit_job: Callable[..., str], wait_until: WaitUntil
) -> None:
    output = rendered(24)
    away = output.path / "away"
    away.mkdir()
    for shard in ("00000", "00003", "00005"):
        (output.path / shard).rename(away / shard)
    submit_job(output=output.label)
    client, base = pages_of(output)
    wait_until(lambda: "New pictures appear here." in client.get(base).text, "the ledger is read")
    seen: list[str] = []

    def look(address: str) -> str:
        """Takes in a piece; returns the address of what follows it."""
        page = client.get(address).text
        seen.extend(tiles(page))
        for here, part in re.findall(r'data-url="([^"]*)">(.*?)</section>', page, re.DOTALL):
            # What was far away comes back as it was.
            assert tiles(client.get(html.unescape(here)).text) == tiles(part)
        found = re.search(r'hx-get="([^"]*/page\?[^"]*)" hx-trigger="every', page)
        assert found is not None
        return html.unescape(found[1])

    def places(*shards: int) -> list[str]:
        return [f"{base}/{shard}/{place}" for shard in shards for place in range(4)]

    def comes(shard: int) -> bool:
        nonlocal tail
        tail = look(tail)
        return seen[-4:] == places(shard)

    tail = look(look(base))
    assert seen == places(1, 2, 4)
    for shard in (3, 5, 0):
        (away / f"0000{shard}").rename(output.path / f"0000{shard}")
        wait_until(lambda shard=shard: comes(shard), f"shard {shard} comes")  # type: ignore[misc]
    assert seen == places(1, 2, 4, 3, 5, 0)
    look(look(tail))
    assert len(seen) == 24


def test_the_last_pictures_of_a_job_come_after_its_end(
    rendered: Rendered,
    pages_of: PagesOf,
    submit_job: Callable[..., str],
    ledger: Ledger,
    wait_until: WaitUntil,
) -> None:
    output = rendered(12)
    (output.path / "00001").rename(output.path / "away")
    client, base = pages_of(output)
    job_id = submit_job(output=output.label)
    wait_until(lambda: "New pictures appear here." in client.get(base).text, "the ledger is read")
    tail = html.unescape(re.search(r'hx-get="([^"]*)" hx-trigger="every', client.get(base).text)[1])  # type: ignore[index]
    assert "late=1.0" in tail
    ledger.client.hset(f"imagemill:job:{job_id}", mapping={"state": "finished", "outcome": "complete"})
    wait_until(lambda: "The end." in client.get(base).text, "the ledger is read again")
    # The shards were listed a moment ago, and that is kept.
    (output.path / "away").rename(output.path / "00001")
    assert tiles(client.get(tail).text) == [f"{base}/1/{place}" for place in range(4)]


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


def test_an_output_of_damaged_shards_alone_is_not_called_one_without_pictures(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(48)
    for shard in range(12):
        output.metadata_file(shard).write_text("no JSON\n")
    client, base = pages_of(output)
    for path in (base, f"{base}?text=fox"):
        said = words(client.get(path).text)
        assert "00000/metadata.jsonl:1" in said and "No picture here can be read." in said
        assert "no pictures yet" not in said and "Nothing was found" not in said
    said = words(client.get(f"{base}/grid").text)
    assert "00004/metadata.jsonl:1" in said and "00005" not in said, "after five no further one is read"
    assert "Those that follow" in said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_output_that_was_removed_does_not_look_like_one_that_has_not_begun(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(8, layout=layout)
    output.path.rename(output.path.with_name("elsewhere"))
    client, base = pages_of(output)
    for path, status in ((base, 200), (f"{base}?text=fox", 200), (f"{base}/grid", 200), (f"{base}/0/0", 404)):
        answer = client.get(path)
        assert answer.status_code == status
        assert f"{output.label}: there is no such folder on this machine" in words(answer.text)
        assert "no pictures yet" not in answer.text and "Nothing was found" not in answer.text


def test_a_folder_that_is_no_output_is_not_called_one_without_pictures(
    tmp_path: Path, pages_of: PagesOf
) -> None:
    (tmp_path / "prompts.txt").write_text("a fox")
    client, base = pages_of(Output(tmp_path))
    for path in (base, f"{base}/grid"):
        said = words(client.get(path).text)
        assert f"{tmp_path}: is no output of imagemill" in said
        assert "no pictures yet" not in said
    begun = Output(tmp_path / "begun")
    begun.prepare()
    client, base = pages_of(begun)
    assert "There are no pictures yet." in words(client.get(base).text)


def test_a_grid_without_pictures_says_so(
    rendered: Rendered, pages_of: PagesOf, submit_job: Callable[..., str], wait_until: WaitUntil
) -> None:
    output = rendered(0, prompts=["a fox"])
    client, base = pages_of(output)
    said = words(client.get(f"{base}/grid").text)
    assert "There are no pictures yet." in said and "A job renders here" not in said
    assert "differ" not in said and "0 pictures" not in said
    assert "There are no pictures from here on." in words(client.get(f"{base}/grid?shard=3").text)
    submit_job(output=output.label)
    wait_until(
        lambda: "A job renders here: load this page again" in words(client.get(f"{base}/grid").text),
        "the ledger is read again",
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_output_that_cannot_be_read_is_told_on_its_page(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(8, layout=layout)
    (output.path / ".imagemill" / "shards.json").write_text("{")
    client, base = pages_of(Output(output.path))
    answer = client.get(base)
    assert answer.status_code == 502
    assert "not what imagemill wrote" in words(answer.text)
