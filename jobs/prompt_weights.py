"""Texts with weights: A1111's attention syntax, and what cannot be rendered of it or of compel's.

Source: the wiki of AUTOMATIC1111's stable-diffusion-webui, "Attention/emphasis", "Prompt editing",
"Alternating Words", "Infinite prompt length"; https://github.com/damian0815/compel for compel's syntax, which
its own parser reads in the worker.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from jobs.wording import shortened

Syntax = Literal["plain", "a1111", "compel"]
"""plain: a text is what it is; a1111: (text:1.3), ((text)), [text], BREAK; compel: (text)1.3, text++."""
LongPrompts = Literal["cut", "chunk"]
"""What becomes of a text that is longer than the encoder's window."""

ROUND: Final = 1.1
"""The weight of a text in round brackets; in square ones it is divided by it."""
MOST_WEIGHT: Final = 100.0
MOST_CHUNKS: Final = 32
"""Windows of a text: the denoiser attends to all of them at once, so their memory counts in every slot."""
_DEEPEST: Final = 32
_LONGEST: Final = 8192

_TOKEN = re.compile(r"\\[()\[\]\\]?|[()\[\]]|[^\\()\[\]]+")
_NUMBER = re.compile(r"[+-]?[\d.]+")
_BREAK = re.compile(r"\bBREAK\b")
_STEP = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_NETWORK = re.compile(r"<(\w{1,40}):[^<>]{1,400}>")
_EMBEDDING = re.compile(r"(?<!\w)embedding:[^\s,()\[\]]{1,200}")
_AND = re.compile(r"\bAND\b")
_SWAP = re.compile(r"\.swap\s*\(")
_LORA = re.compile(r"\b(?:use|with)Lora\s*\([^()]{0,200}\)?")
_COLON_WEIGHT = re.compile(r":[ \t]{0,20}[+-]?[\d.]{1,40}[ \t]{0,20}\)")


class Part(NamedTuple):
    """Some text and its weight."""

    text: str
    weight: float


Section = tuple[Part, ...]
"""What stands between two BREAKs; never empty."""


class PromptSyntaxError(ValueError):
    """A text says something that is not rendered; the message shows what, and the remedy."""


def missing_package(syntax: str) -> str | None:
    """What has to be installed here before texts in this syntax can be encoded; None for nothing."""
    if syntax == "compel" and importlib.util.find_spec("compel") is None:
        return "syntax: compel needs compel, which is not installed here: pip install 'imagemill[prompts]'"
    return None


def weights_trouble(text: str, syntax: str) -> str | None:
    """What of a text cannot be rendered in this syntax, with the remedy; None where all of it can."""
    try:
        if syntax == "a1111":
            a1111_sections(text)
        elif syntax == "compel":
            check_compel(text)
    except PromptSyntaxError as error:
        return str(error)
    return None


def a1111_sections(text: str) -> tuple[Section, ...]:
    """A text in A1111's syntax, as what stands between its BREAKs; neighbours of one weight are one part.

    Takes time in proportion to the text, however deep its brackets are nested. A bracket without its partner
    is read as A1111 reads it: one that opens reaches to the end, one that closes is text. Raises
    PromptSyntaxError for what is not rendered, and for weights that are not within -100 .. 100.
    """
    _refuse_names(text)
    if (found := _AND.search(text)) is not None:
        raise PromptSyntaxError(
            f"{_around(text, found)}: AND composes several prompts, which is not rendered: write a comma, or "
            "`and` in small letters"
        )
    tokens = _TOKEN.findall(text)
    factors = _factors(tokens)
    sections: list[list[Part]] = [[]]
    rounds, squares = [1.0], [1.0]
    for place, token in enumerate(tokens):
        if place in factors:
            open_now = rounds if token == "(" else squares
            open_now.append(open_now[-1] * factors[place])
            continue
        closes = factors.get(~place)
        if closes is not None:
            (rounds if token == ")" else squares).pop()
            continue
        shown = token[1:] if token[0] == "\\" else token
        if ~(place + 1) in factors and tokens[place + 1] == ")" and _weight_at_end(token) is not None:
            shown = shown[: shown.rindex(":")]
        weight = rounds[-1] * squares[-1]
        if not abs(weight) <= MOST_WEIGHT:
            raise PromptSyntaxError(
                f"{shortened(shown)} has a weight of {weight:g}: it must lie between -{MOST_WEIGHT:g} and "
                f"{MOST_WEIGHT:g}"
            )
        _add(sections, shown, weight, literal=token[0] == "\\")
    if len(sections) > MOST_CHUNKS:
        raise PromptSyntaxError(
            f"BREAK makes {len(sections)} chunks of the text: there may be {MOST_CHUNKS}: write fewer"
        )
    return tuple(tuple(section) if section else (Part("", 1.0),) for section in sections)


def _add(sections: list[list[Part]], text: str, weight: float, *, literal: bool) -> None:
    """Adds a text to the last section, and begins a new one at each BREAK."""
    parts = [text] if literal else _BREAK.split(text)
    for number, cut in enumerate(parts):
        if number > 0:
            sections.append([])
        part = cut if number == 0 else cut.lstrip()
        part = part if number == len(parts) - 1 else part.rstrip()
        section = sections[-1]
        if part == "":
            continue
        if section and section[-1].weight == weight:
            section[-1] = Part(section[-1].text + part, weight)
        else:
            section.append(Part(part, weight))


def _factors(tokens: list[str]) -> dict[int, float]:
    """The factor of each bracket that opens, by its place, and under `~place` that of each that closes one.

    Brackets that are not here are text.
    """
    factors: dict[int, float] = {}
    rounds: list[int] = []
    squares: list[int] = []
    alternating: set[int] = set()
    for place, token in enumerate(tokens):
        match token:
            case "(":
                rounds.append(place)
            case "[":
                squares.append(place)
            case ")" if rounds:
                given = _weight_at_end(tokens[place - 1]) if place - 1 > rounds[-1] else None
                factors[rounds.pop()] = factors[~place] = ROUND if given is None else given
            case "]" if squares:
                opened = squares.pop()
                _refuse_steps(tokens, opened, place, opened in alternating)
                factors[opened] = factors[~place] = 1 / ROUND
            case _ if "|" in token and squares and (not rounds or rounds[-1] < squares[-1]):
                alternating.add(squares[-1])
    return factors | dict.fromkeys(rounds, ROUND) | dict.fromkeys(squares, 1 / ROUND)


def _weight_at_end(token: str) -> float | None:
    """1.3 of `text:1.3`; None where no number ends the text. Raises PromptSyntaxError for `text:1.2.3`."""
    _text, colon, tail = token.rpartition(":")
    written = tail.strip()
    if not colon or _NUMBER.fullmatch(written) is None:
        return None
    try:
        return float(written)
    except ValueError:
        raise PromptSyntaxError(f"({shortened(token)}): {shortened(written)} is no number") from None


def _refuse_steps(tokens: list[str], opened: int, closed: int, alternating: bool) -> None:
    """Raises PromptSyntaxError for square brackets that change the prompt while it is painted."""
    _text, colon, tail = tokens[closed - 1].rpartition(":")
    if alternating:
        what = "alternates between texts from step to step"
    elif colon and closed - 1 > opened and _STEP.fullmatch(tail.strip()) is not None:
        what = "changes the text after some steps"
    else:
        return
    shown = shortened("".join(tokens[opened : min(closed + 1, opened + 20)]))
    raise PromptSyntaxError(
        rf"{shown} {what}, which is not rendered: write one text; brackets that are text are \[ and \]"
    )


def _refuse_names(text: str) -> None:
    """Raises PromptSyntaxError for a text that names a file which would have to be loaded."""
    if (found := _NETWORK.search(text)) is not None:
        kind = found[1].lower()
        if kind != "lora":
            what = {"hypernet": "a hypernetwork", "lyco": "a LyCORIS network"}.get(kind, "a network")
            raise PromptSyntaxError(f"{shortened(found[0])} names {what}, which is not rendered: remove it")
        raise PromptSyntaxError(
            f"{shortened(found[0])} names a LoRA, which a prompt loads under `syntax: a1111` with "
            "`lora_folder: FOLDER`, and a negative prompt never: add these to the manifest, or remove it"
        )
    if (found := _EMBEDDING.search(text)) is not None:
        raise PromptSyntaxError(
            f"{shortened(found[0])} names a textual inversion, which is not rendered: remove it"
        )


def check_compel(text: str) -> None:
    """Raises PromptSyntaxError for what is not rendered of compel's syntax, and for what it would misread."""
    _refuse_names(text)
    if (found := _LORA.search(text)) is not None:
        raise PromptSyntaxError(f"{shortened(found[0])} names a LoRA, which is not rendered: remove it")
    if (found := _SWAP.search(text)) is not None:
        raise PromptSyntaxError(
            f"{_around(text, found)}: .swap() is not rendered: write one of the two texts"
        )
    if (found := _BREAK.search(text)) is not None:
        raise PromptSyntaxError(
            f'{_around(text, found)}: BREAK is A1111\'s: write ("one text", "another").and(), or set '
            "syntax: a1111"
        )
    if (found := _COLON_WEIGHT.search(text)) is not None:
        raise PromptSyntaxError(
            f"{_around(text, found)}: (text:1.3) is A1111's: write (text)1.3, or set syntax: a1111"
        )
    if len(text) > _LONGEST:
        raise PromptSyntaxError(f"has {len(text):,} characters: compel's parser gets {_LONGEST:,} at most")
    deepest = max(_depths(text))
    if deepest > _DEEPEST:
        raise PromptSyntaxError(
            f"brackets are nested {deepest} deep: compel's parser gets {_DEEPEST} at most"
        )


def _depths(text: str) -> Iterator[int]:
    """How many round brackets are open, after each of them."""
    depth = 0
    yield depth
    for character in text:
        depth += (character == "(") - (character == ")" and depth > 0)
        yield depth


def _around(text: str, found: re.Match[str]) -> str:
    """What was found and a little of the text before it."""
    return shortened(text[max(0, found.start() - 20) : found.end()])
