"""What visitors of the pages give."""

from __future__ import annotations

from typing import Final

TOKEN: Final = "a-token-of-32-characters-in-ascii"
HTML: Final = {"Accept": "text/html"}
"""What a browser asks for when a person goes to a page."""
