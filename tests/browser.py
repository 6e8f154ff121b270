"""Chromium without a window: the one place that starts it, and that keeps account of what it was kept from.

It is the system's own (`apt-get install chromium`), driven by the package playwright, whose own browsers are
not downloaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS: Final = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOW: Final = """() => [...document.querySelectorAll("a:not(.skip)")]
  .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 24)
  .map((one) => one.outerHTML)"""
"""The links that are too low for a finger."""
TURNED: Final = "a\u2069\u202eb"
"""What reverses all that stands after it on its line, out of `<bdi>` too."""
BACKWARDS: Final = """() => {
  const found = [];
  const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const block = (node) => {
    let one = node.parentElement;
    while (getComputedStyle(one).display.startsWith("inline")) one = one.parentElement;
    return one;
  };
  let before = null;
  while (nodes.nextNode()) {
    const node = nodes.currentNode;
    if (node.parentElement.closest(".turns, option") || !node.parentElement.checkVisibility()) continue;
    for (let at = 0; at < node.length; at++) {
      if (!/[0-9A-Za-z]/.test(node.data[at])) continue;
      const range = document.createRange();
      range.setStart(node, at);
      range.setEnd(node, at + 1);
      const { left, top, width } = range.getBoundingClientRect();
      if (!width) continue;
      const here = { left, top, block: block(node) };
      if (before && before.block === here.block && Math.abs(top - before.top) < 4 && left < before.left) {
        found.push(node.data.trim());
        before = null;
        break;
      }
      before = here;
    }
  }
  return found;
}"""
"""The texts of a page whose letters do not go from left to right."""
LONGEST: Final = 120_000
"""Milliseconds that a page may take on a busy machine."""


class Visit:
    """A page in a browser, with all that it asked for and all that went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        """The addresses of all requests."""
        self.troubles: list[str] = []
        """Errors of scripts, and what the console said besides: a violation of the policy, for one."""
        page.on("request", self._request)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("dialog", lambda dialog: self.troubles.append(f"dialog: {dialog.message}"))

    def check(self, server: str) -> None:
        """Nothing went wrong, and nothing was asked for elsewhere."""
        assert self.troubles == []
        here = urlsplit(server).netloc
        assert [url for url in self.asked if urlsplit(url).netloc != here] == []

    def _request(self, request: Request) -> None:
        self.asked.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"{message.type}: {message.text}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, until the block ends. Fails where the machine has none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    assert found is not None, "no Chromium: apt-get install chromium (macOS: brew install --cask chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(
    browser: Browser, *, width: int = 1280, height: int = 800, dark: bool = False
) -> Iterator[Visit]:
    """A page of its own, with no cookies, until the block ends."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(LONGEST)
    try:
        yield Visit(context.new_page())
    finally:
        context.close()
