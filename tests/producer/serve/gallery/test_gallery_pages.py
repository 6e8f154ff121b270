"""The pages of an output as a browser gets them: what they show is what the output holds, as text."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jobs.ledger.ledger import Ledger
from jobs.output.output import Output
from tests.page_text import tiles, words
from tests.waiting import WaitUntil

Rendered = Callable[..., Output]
PagesOf = Callable[[Output], tuple[TestClient, str]]
HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(2)> {{ 7*7 }} ' &amp; \u202e"""
LAYOUTS = ("files", "webdataset")


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
    assert "A job here is not finished." in bar
    tail, new = (
        html.unescape(re.search(rf'hx-get="([^"]*/{name}\?[^"]*)" hx-trigger="every', text)[1])  # type: ignore[index]
        for name, text in (("page", page), ("new", bar))
    )
    assert tiles(client.get(tail).text) == []
    found = client.get(f"{base}?text=fox+3%26").text
    assert "Nothing was found so far: a job here is not finished. Search again" in words(found)
    assert f'<a href="{base}?text=fox+3%26">Search again</a>' in found
    (output.path / "00001").rename(output.path / "00002")
    moved = (output.path / "00002" / "metadata.jsonl").read_text("utf-8").replace('"00001', '"00002')
    (output.path / "00002" / "metadata.jsonl").write_text(moved, "utf-8")
    assert tiles(client.get(tail).text) == [f"{base}/2/{place}" for place in range(4)]
    assert "A job here is not finished." in client.get(new).text


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_every_image_failed_the_page_leads_to_what_failed(
    layout: str, rendered: Rendered, pages_of: PagesOf
) -> None:
    client, base = pages_of(rendered(8, failed=tuple(range(8)), layout=layout))
    page = client.get(base).text
    assert "No picture is here, for every image failed: see what failed" in words(page)
    assert "no pictures yet" not in page
    assert f'<a href="{base}?failed=1">see what failed</a>' in page
    assert len(tiles(client.get(f"{base}?failed=1").text)) == 8


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
