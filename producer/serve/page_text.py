"""Text on pages: escaped, and kept from turning around what stands beside it.

Prompts, names and reasons are strangers' text. A mark such as U+202E reverses the text after it, and U+2069
ends any isolation that a browser knows, `<bdi>` too (Unicode Standard Annex #9). So each mark is shown in a
box of its own, in which it turns nothing; a copy of the text has it as it was. Words that are written from
right to left are isolated, because they move what stands next to them: a number, a bracket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle
from typing import Final

from markupsafe import Markup, escape

_MARKS: Final = "\u202a-\u202e\u2066-\u2069"
_LEFTWARDS: Final = "\u0590-\u08ff\u200f\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff"
"""Letters and digits that go from right to left, by the ranges of DerivedBidiClass.txt."""
_MARK: Final = re.compile(f"([{_MARKS}])")
_TURNS: Final = re.compile(f"[{_MARKS}{_LEFTWARDS}]")
_LEFTWARD: Final = re.compile(f"[{_LEFTWARDS}]")
_SPACES: Final = re.compile(r"(\s+)")
_SHORT: Final = 300
"""Characters of a prompt on a page of many."""


def isolated(text: object) -> object:
    """A text that stands by itself, as a page has it; anything else as it is."""
    if not isinstance(text, str) or hasattr(text, "__html__") or not _TURNS.search(text):
        return text
    return Markup("<bdi>{}</bdi>").format(_marked(text))


def mixed(text: str) -> Markup:
    """A text that is partly ours and partly strangers', such as a message or a command."""
    return Markup("").join(
        Markup("<bdi>{}</bdi>").format(_marked(words)) if turned else _marked(words)
        for words, turned in _by_direction(text)
    )


def message(text: str) -> Markup:
    """A message, on its lines, with what stands between backticks as code."""
    pieces = [mixed(piece) for piece in text.split("`")]
    if len(pieces) % 2 == 0:  # one is not closed
        pieces = [mixed(text)]
    said = Markup("").join(
        Markup("<code>{}</code>").format(piece) if odd else piece
        for piece, odd in zip(pieces, cycle((False, True)), strict=False)
    )
    return said.replace("\n", Markup("<br>"))


def bare(text: str) -> Markup:
    """A text where no markup can be: an attribute, a title. Marks are written as their escapes."""
    shown = _MARK.sub(lambda mark: mark[1].encode("unicode_escape").decode(), text)
    return escape(f"\u2068{shown}\u2069" if _TURNS.search(shown) else shown)


def kept(text: str) -> Markup:
    """A text as it is, for what a form sends back."""
    return escape(text)


def short(text: str) -> str:
    """The beginning of a prompt, which may have 20,000 characters."""
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def _by_direction(text: str) -> Iterator[tuple[str, bool]]:
    """The text in parts: words next to each other that go from right to left, and what is between them."""
    if not _LEFTWARD.search(text):
        yield text, False
        return
    plain = turned = ""
    spaces = ""
    for number, piece in enumerate(_SPACES.split(text)):
        if number % 2:
            spaces = piece
        elif _LEFTWARD.search(piece):
            if turned:
                turned += spaces + piece
            else:
                yield plain + spaces, False
                plain, turned = "", piece
        else:
            if turned:
                yield turned, True
                turned = ""
            plain += spaces + piece
    yield (turned, True) if turned else (plain, False)


def _marked(text: str) -> Markup:
    # No quotes: where a template forgets `bare`, this ends no attribute.
    return Markup("").join(
        Markup("<i class=turns data-mark=U+{}>{}</i>").format(f"{ord(piece):04X}", piece)
        if odd
        else escape(piece)
        for piece, odd in zip(_MARK.split(text), cycle((False, True)), strict=False)
    )
