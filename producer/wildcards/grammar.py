"""A template's text as a tree: words, wildcards, alternatives.

The syntax is that of dynamicprompts 0.31 (https://github.com/adieyal/dynamicprompts, docs/SYNTAX.md), whose
parser reads it. That takes 3 ms an alternative, so templates without nested braces, which nearly all are, are
read here; a test holds both to the same trees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.errors import ManifestError
from jobs.wording import shortened
from producer.wildcards.line_template import has_syntax

if TYPE_CHECKING:
    from dynamicprompts.commands import Command

MOST_CHARACTERS: Final = 100_000
"""Of a template."""
_MOST_PARSED: Final = 10_000
"""Characters that are given to dynamicprompts' parser: some seconds."""
_DEEPEST: Final = 20
"""Braces within braces; dynamicprompts' parser ends at 40 with Python's stack."""

_COMMENT = re.compile(r"#|//|/\*")
_NAME = r"__(?P<name>(?:(?!__)[\w/*.\- ])+)__"
_PIECE = re.compile(
    _NAME
    + r"|\{(?:(?P<bounds>\d{1,9}(?:-\d{1,9})?)\$\$(?:(?P<separator>[!-#%-z|~ ]+)\$\$)?)?(?P<body>[^{}$%]*)\}"
    + r"|(?P<words>(?:(?!__)[^{$%]|\$(?!\{)|%(?!\{))+)"
)
_OPTION_PIECE = re.compile(_NAME + r"|(?P<words>(?:(?!__)[^|])+)")
_WEIGHT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)::(?=\S)")
_BLANKS: Final = " \t\n\r"
_UNSUPPORTED: Final = (
    (re.compile(r"(?<!\$)\$\{"), "variables, ${name}, are not supported: write what they stand for"),
    (re.compile(r"%\{"), "wrapping, %{…$$…}, is not supported: write the words around it"),
)
_METHODS: Final = {
    "COMBINATORIAL": "the combinatorial mark ! is not supported: leave `sample` out for all",
    "CYCLICAL": "the cyclical mark @ is not supported: remove it",
}


@dataclass(frozen=True, slots=True)
class Words:
    """Text that is taken as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A line of a wildcard file: `__name__`."""

    name: str


@dataclass(frozen=True, slots=True)
class Option:
    """One of some alternatives."""

    tree: Tree
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Alternatives:
    """`least` to `most` different ones of `options`, in any order: `{a|b}`, `{2$$ and $$a|b|c}`."""

    options: tuple[Option, ...]
    least: int = 1
    most: int = 1
    separator: str = ","


@dataclass(frozen=True, slots=True)
class Parts:
    """One after the other."""

    trees: tuple[Tree, ...]


Tree = Words | Wildcard | Alternatives | Parts


def parse(text: str) -> Tree:
    """The tree of a template. Raises ManifestError with what is wrong and the remedy."""
    if not has_syntax(text):
        return Words(text)
    if len(text) > MOST_CHARACTERS:
        raise ManifestError(f"a template has at most {MOST_CHARACTERS:,} characters, and this {len(text):,}")
    tree = parsed_here(text)
    return parsed_by_dynamicprompts(text) if tree is None else tree


def parsed_here(text: str) -> Tree | None:
    """The tree of a template without nested braces and comments; None for any other."""
    if _COMMENT.search(text) is not None:
        return None
    trees: list[Tree] = []
    end = 0
    for piece in _PIECE.finditer(text):
        if piece.start() != end:
            return None
        end = piece.end()
        if (body := piece["body"]) is not None:
            tree = _alternatives(body, piece["bounds"], piece["separator"])
            if tree is None:
                return None
            trees.append(tree)
        else:
            trees.append(_word_or_wildcard(piece))
    return _joined(trees) if end == len(text) else None


def _alternatives(body: str, bounds: str | None, separator: str | None) -> Alternatives | None:
    options: list[Option] = []
    if body.lstrip(_BLANKS)[:1] in ("~", "!", "@"):
        return None
    for written in body.split("|"):
        option, weight = written.lstrip(_BLANKS), 1.0
        if "::" in option:
            given = _WEIGHT.match(option)
            if given is None or "::" in option[given.end() :]:
                return None
            option, weight = option[given.end() :], float(given[1])
        trees: list[Tree] = []
        end = 0
        for piece in _OPTION_PIECE.finditer(option):
            if piece.start() != end:
                return None
            end = piece.end()
            trees.append(_word_or_wildcard(piece))
        if end != len(option):
            return None
        options.append(Option(_joined(trees), weight))
    low, _, high = ("1" if bounds is None else bounds).partition("-")
    least, most = sorted((int(low), int(high if high else low)))
    return Alternatives(tuple(options), least, most, "," if separator is None else separator)


def _word_or_wildcard(piece: re.Match[str]) -> Tree:
    return Words(piece["words"]) if piece["name"] is None else Wildcard(piece["name"])


def _joined(trees: list[Tree]) -> Tree:
    if not trees:
        return Words("")
    return trees[0] if len(trees) == 1 else Parts(tuple(trees))


def parsed_by_dynamicprompts(text: str) -> Tree:
    """The tree of a template as dynamicprompts reads it. Raises ManifestError."""
    for pattern, what in _UNSUPPORTED:
        if (found := pattern.search(text)) is not None:
            raise ManifestError(f"column {found.start() + 1}: {what}")
    if len(text) > _MOST_PARSED:
        what = f"a template with braces in braces or comments has at most {_MOST_PARSED:,} characters"
        raise ManifestError(f"{what}: move some of it into wildcard files")
    if _depth(text) > _DEEPEST:
        what = f"braces are nested deeper than {_DEEPEST}"
        raise ManifestError(f"{what}: move some of it into wildcard files")
    # The parser takes seconds to find that a long text ends within braces.
    if "#" not in text and (begun := _not_closed(text)) is not None:
        raise _unreadable(text, begun)
    try:
        from dynamicprompts.parser.parse import parse as parse_commands
        from pyparsing import ParseException
    except ImportError:
        raise ManifestError(
            "dynamicprompts is not installed, which reads this template: pip install 'imagemill[prompts]'"
        ) from None
    try:
        return _tree(parse_commands(text))
    except ParseException as error:
        raise _unreadable(text, error.loc) from None
    except RecursionError:
        raise ManifestError("is nested too deeply: move some of it into wildcard files") from None


def _unreadable(text: str, start: int) -> ManifestError:
    near = shortened(text[start : start + 20])
    return ManifestError(
        f"column {start + 1}: cannot be read from {near} on: close {{…}} or __…__ there, or write it "
        "without these marks"
    )


def _not_closed(text: str) -> int | None:
    """Where the first brace stands that is never closed."""
    open_braces: list[int] = []
    for mark in re.finditer(r"[{}]", text):
        if mark[0] == "{":
            open_braces.append(mark.start())
        elif open_braces:
            open_braces.pop()
    return open_braces[0] if open_braces else None


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r"[{}]", text):
        depth += 1 if mark == "{" else -1
        deepest = max(deepest, depth)
    return deepest


def _tree(command: Command) -> Tree:
    from dynamicprompts import commands

    method = getattr(command.sampling_method, "name", "")
    if method in _METHODS:
        raise ManifestError(_METHODS[method])
    match command:
        case commands.LiteralCommand(literal=text):
            return Words(text)
        case commands.SequenceCommand(tokens=tokens):
            return _joined([_tree(token) for token in tokens])
        case commands.WildcardCommand(wildcard=str(name), variables=variables) if not variables:
            return Wildcard(name)
        case commands.VariantCommand():
            options = tuple(Option(_tree(one.value), one.weight) for one in command.variants)
            return Alternatives(options, command.min_bound, command.max_bound, command.separator)
        case commands.WildcardCommand(variables=variables) if variables:
            raise ManifestError("a wildcard with variables is not supported: remove them")
        case commands.WildcardCommand():
            raise ManifestError("a wildcard whose name is put together is not supported: write each name")
    raise ManifestError(f"{type(command).__name__} is not supported: write the template without it")


def canonical(tree: Tree) -> str:
    """The same text for equal trees alone."""
    return "".join(_pieces(tree))


def _pieces(tree: Tree) -> Iterator[str]:
    match tree:
        case Words(text):
            yield f"{len(text)}:{text}"
        case Wildcard(name):
            yield f"__{name}__"
        case Parts(trees):
            for one in trees:
                yield from _pieces(one)
        case Alternatives(options, least, most, separator):
            yield f"{{{least}-{most}$${separator}$$"
            for option in options:
                yield f"|{option.weight}::"
                yield from _pieces(option.tree)
            yield "}"
