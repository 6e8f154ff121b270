"""Texts that look like another tool's prompt syntax, which plain prompts are drawn with as words.

A million prompts are looked through in some milliseconds: many are joined, and only what begins like a mark
is given to a regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from jobs.wording import counted


class Form(NamedTuple):
    """One way to write a mark."""

    sign: str
    """A character of `begin` that few texts have: looking for one is ten times as fast as for several."""
    begin: str
    pattern: str
    """What stands where `begin` does; reads no NUL, which parts texts, and not far, so no text takes long.
    Compiled when it is first needed: all of them take 30 ms."""


class Mark(NamedTuple):
    """One kind of syntax."""

    name: str
    """With an example."""
    remedy: str
    forms: tuple[Form, ...]
    read_by: tuple[str, ...]
    """The values of `syntax` that read it."""


_MIDJOURNEY: Final = (
    "ar|aspect|chaos|cref|creative|cw|draft|exp|fast|hd|iw|niji|no|oref|p|personalize|profile|q|quality|raw|"
    "relax|repeat|sameseed|sref|stop|style|stylize|sw|test|testp|tile|turbo|upanime|upbeta|uplight|v|version|"
    "video|weird"
)
OTHER_TOOLS: Final = frozenset(_MIDJOURNEY.split("|"))
"""Flags that are Midjourney's, and neither kohya's nor A1111's."""
_FLAGS: Final = f"{_MIDJOURNEY}|c|cn|d|h|i|l|n|r|s|seed|ss|t|w"
_WORDS: Final = "they are painted as words"


def _form(begin: str, pattern: str, *, sign: str | None = None) -> Form:
    return Form(begin[0] if sign is None else sign, begin, pattern)


MARKS: Final = (
    Mark(
        "weights, (text:1.3), ((text)) or [text]",
        f"{_WORDS}: write `syntax: a1111` to weigh them",
        (
            _form(
                "(",
                r"\([^()\0]{1,200}:[ ]?[+-]?(?:\d+\.\d*|\.\d+|(?<!\d:)\d+)[ ]?\)|\(\([^()\0]{1,200}\)\)",
            ),
            _form("[", r"\[[^\[\]\0]{1,200}\]"),
        ),
        ("a1111",),
    ),
    Mark(
        "weights, text++ or (text)--",
        f"{_WORDS}: write `syntax: compel` to weigh them",
        (_form("++", r"(?<=[\w)])\+\+"), _form(")--", r"\)--"), _form(")", r"\)\.(?:and|blend)\(")),
        ("compel",),
    ),
    Mark(
        "LoRAs, <lora:name:0.8>",
        f"{_WORDS}: write `syntax: a1111` and `lora_folder: FOLDER` to load them",
        (_form("<", r"<(?i:lora):[^<>\0]{1,200}>"),),
        ("a1111",),
    ),
    Mark(
        "networks, <lyco:name:0.8>",
        "no network is loaded: take them out",
        (_form("<", r"<(?:lyco|hypernet):[^<>\0]{1,200}>"),),
        (),
    ),
    Mark(
        "embeddings, embedding:name",
        "no embedding is loaded: take them out",
        (_form("embedding:", r"(?<!\w)embedding:(?=[^\s\0])", sign=":"),),
        (),
    ),
    Mark(
        "chunks or parts, BREAK or AND",
        f"{_WORDS}: write `syntax: a1111` to read them",
        (
            _form("BREAK", r"\bBREAK\b", sign="K"),
            _form("AND", r"(?<![A-Z] )\bAND\b(?! [A-Z]{2})", sign="A"),
        ),
        ("a1111",),
    ),
    Mark(
        "alternatives, {a|b}",
        f"{_WORDS}: write `syntax: dynamic` to draw from them",
        (_form("{", r"\{[^{}\0]{0,1000}\||\{\d[\d-]{0,20}\$\$|(?<=\$)\{\w"),),
        ("dynamic",),
    ),
    Mark(
        "wildcards, __name__",
        f"{_WORDS}: write `syntax: dynamic` to draw from their files",
        (_form("__", r"(?<!_)__(?:[~!@]?\w(?:(?!__)[\w/*.\- ]){0,100}__|[*][\w/*.\-]{0,100}?__)", sign="_"),),
        ("dynamic",),
    ),
    Mark(
        "another tool's flags, --ar 16:9",
        f"{_WORDS}: take them out, and give what they mean as settings",
        (_form("--", rf"(?<=\s)--(?:{_FLAGS})(?=[\s\0]|$)", sign="-"),),
        (),
    ),
)


class Found(NamedTuple):
    """Texts with marks of one kind."""

    texts: int
    first: str
    """Where the first of them is."""


def marked(texts: Sequence[str]) -> dict[int, tuple[int, int]]:
    """For each kind of mark, by its place in MARKS, how many of `texts` have one, and which is the first."""
    joined = "\0".join(texts)
    found: dict[int, tuple[int, int]] = {}
    for number, mark in enumerate(MARKS):
        having = set[int]()
        for form in mark.forms:
            if form.sign in joined and form.begin in joined:
                having.update(_having(joined, form))
        if having:
            found[number] = (len(having), min(having))
    return found


def _having(joined: str, form: Form) -> Iterator[int]:
    """Which of the texts, parted by NUL, have the mark in this form."""
    text = counted_to = 0
    pattern = re.compile(form.pattern)
    at = joined.find(form.begin)
    while at >= 0:
        if pattern.match(joined, at) is None:
            at = joined.find(form.begin, at + 1)
            continue
        text += joined.count("\0", counted_to, at)
        counted_to = at
        yield text
        end = joined.find("\0", at)
        at = -1 if end < 0 else joined.find(form.begin, end)


@dataclass(slots=True)
class Marks:
    """What was found in the texts of a manifest and its files."""

    found: dict[int, Found] = field(default_factory=dict)

    def add(self, found: Mapping[int, Found]) -> None:
        """Takes in what was found in later texts."""
        for number, one in found.items():
            before = self.found.get(number)
            self.found[number] = one if before is None else Found(before.texts + one.texts, before.first)

    def warnings(self, syntax: Iterable[str]) -> Iterator[str]:
        """A sentence for each kind that none of `syntax` reads."""
        read = set(syntax)
        for number, (texts, first) in sorted(self.found.items()):
            mark = MARKS[number]
            if read.isdisjoint(mark.read_by):
                remedy = _beside(read, mark)
                yield f"{counted(texts, 'prompt')} with {mark.name}, first {first}: {remedy}"


def _beside(read: Collection[str], mark: Mark) -> str:
    """The remedy of `mark`, whose key goes on reading the templates or weights that `read` has."""
    for key in mark.read_by:
        others = [one for one in ("a1111", "compel") if one in read] if key == "dynamic" else [key]
        if others and "dynamic" in {key, *read}:
            return mark.remedy.replace(f"`syntax: {key}`", f"`syntax: [dynamic, {others[0]}]`")
    return mark.remedy
