"""Pictures and their thumbnails as a browser gets them."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from jobs.output.output import Output

Rendered = Callable[..., Output]
PagesOf = Callable[[Output], tuple[TestClient, str]]
LAYOUTS = ("files", "webdataset")


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
    small = client.get(f"{base}/0/1/small?v={there['image_id']}")
    assert (small.status_code, small.headers["content-type"]) == (200, "image/svg+xml")
    assert "immutable" not in small.headers["cache-control"]
    page, whole = client.get(f"{base}/0/1"), client.get(f"{base}/0/1/file")
    assert (page.status_code, whole.status_code) == (200, 502)
    said = "000000001.png: not the picture of its record: its SHA-256 is another"
    assert said in page.text
    assert said in whole.text
    assert f'src="{base}/0/1/file"' not in page.text
    assert client.get(f"{base}/0/0/small").headers["content-type"] == "image/png"


def test_only_pictures_that_were_rendered_here_are_shown(
    rendered: Rendered, pages_of: PagesOf, tmp_path: Path
) -> None:
    output = rendered(3, failed=(1,))
    private = tmp_path / "private.png"
    Image.new("RGB", (64, 64), "red").save(private)
    kept = tmp_path / "kept.png"
    shard = output.shard_folder(0)
    (shard / "000000000.png").rename(kept)
    (shard / "000000000.png").symlink_to(kept)  # as deduplicating stores keep it
    (shard / "000000001.png").symlink_to(private)  # it failed
    (shard / "000000002.png").unlink()
    (shard / "000000002.png").symlink_to(private)
    (shard / "000000003.png").symlink_to(private)  # no record tells of it
    client, base = pages_of(output)
    answers = [client.get(f"{base}/0/{place}/file") for place in range(4)]
    assert [one.status_code for one in answers] == [200, 404, 502, 404]
    assert answers[0].content == kept.read_bytes()
    for place in (1, 2, 3):
        assert client.get(f"{base}/0/{place}/small").headers["content-type"] == "image/svg+xml", place
    (shard / "000000002.png").unlink()
    for path in (f"{base}/0/2", f"{base}/0/2/file"):
        assert "000000002.png: there is no such file" in client.get(path).text


def test_a_page_in_a_pictures_place_is_not_sent_though_its_record_tells_of_it(
    rendered: Rendered, pages_of: PagesOf
) -> None:
    output = rendered(1)
    page = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    [record] = output.records(0)
    told = record | {"sha256": hashlib.sha256(page).hexdigest()}
    (output.shard_folder(0) / "000000000.png").write_bytes(page)
    output.metadata_file(0).write_text(f"{json.dumps(told)}\n", "utf-8")
    client, base = pages_of(output)
    for path in (f"small?v={record['image_id']}", "file"):
        sent = client.get(f"{base}/0/0/{path}")
        assert (sent.status_code, b"alert" in sent.content) == (200, False), path
        assert "immutable" not in sent.headers["cache-control"], path
