"""What a page says, without its markup."""

from __future__ import annotations

import html
import re

_IN_WORDS = re.compile(r"</?bdi>|<i class=turns [^>]*>|</i>")
"""Markup at which no word ends."""


def words(page: str) -> str:
    """The text of a page, with single spaces."""
    page = re.sub(_IN_WORDS, "", page)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


def tiles(page: str) -> list[str]:
    """The addresses of the images on a page."""
    return re.findall(r'<li class="tile[^"]*"><a id="[^"]*" href="([^"]*)"', page)


def block(page: str, name: str) -> str:
    """The text that can be copied under a name."""
    found = re.search(rf'<pre id="{name}"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert found is not None
    return html.unescape(re.sub(_IN_WORDS, "", found[1]))
