"""Reads YAML with the line and column of every value, and refuses its traps.

PyYAML alone keeps the last of two equal keys, reads `no` as false, `010` as 8 and `12:30` as 750, lets a few
hundred bytes of aliases stand for 10^8 values, and crashes on deep nesting in its C composer. Its Python
composer takes twice as long as this file does (docs/decisions.md). So its C parser gives the events, and this
file composes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from jobs.columns import MAX_DEPTH
from jobs.errors import ManifestError
from jobs.wording import shortened
from producer.manifest.document import REFUSED, Document, Node, Problem

MAX_BYTES: Final = 64 << 20
"""A larger file is refused, and so is one whose aliases repeat more characters than this."""
MAX_ALIASED_VALUES: Final = 1_000_000
"""How many values all aliases of a file may stand for."""


def read_yaml(contents: bytes, name: str) -> Document:
    """The document in `contents`; `name` is the file's, for messages.

    Doubled keys, surprising scalars and tags become the document's problems, so that they can be reported
    together with others. Raises ManifestError for what leaves no document: not UTF-8, bad syntax, empty, too
    large.
    """
    text = _decoded(contents, name)
    try:
        return _Composer(name, yaml.parse(text, Loader=_LOADER)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "1:1" if mark is None else f"{mark.line + 1}:{mark.column + 1}"
        context = f" {error.context}" if error.context else ""
        tab = mark is not None and any(
            line.lstrip(" ").startswith("\t") for line in text.split("\n")[mark.line : mark.line + 1]
        )
        hint = ": indent with spaces, not tabs" if tab else ""
        raise ManifestError(f"{name}:{place}: not YAML: {error.problem}{context}{hint}") from None


def _decoded(contents: bytes, name: str) -> str:
    if len(contents) > MAX_BYTES:
        raise ManifestError(f"{name}: is larger than {MAX_BYTES >> 20} MiB: split it into several manifests")
    try:
        text = contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = contents.count(b"\n", 0, error.start) + 1
        column = error.start - (contents.rfind(b"\n", 0, error.start) + 1) + 1
        bad = contents[error.start]
        raise ManifestError(
            f"{name}:{line}:{column}: is not UTF-8 (byte 0x{bad:02x}): save the file as UTF-8"
        ) from None
    control = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if control is not None:
        line = text.count("\n", 0, control.start()) + 1
        column = control.start() - text.rfind("\n", 0, control.start())
        code = ord(control.group())
        raise ManifestError(f"{name}:{line}:{column}: U+{code:04X} is not allowed in YAML: remove it")
    return text


_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_IMPLICIT = yaml.SafeLoader.yaml_implicit_resolvers
_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,39})")
_DECIMAL_POINT = re.compile(r"[-+]?[0-9]*\.?[0-9]*([eE][-+]?[0-9]+)?")


@dataclass(slots=True)
class _Composer:
    """Composes the parser's events into nodes."""

    name: str
    events: Iterator[Any]
    problems: list[Problem] = field(default_factory=list)
    path: list[str | int] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int, int] | None] = field(default_factory=dict)
    """The anchored value, and how many values and characters it stands for; None while it is being read."""
    values: int = 0
    characters: int = 0
    aliased_values: int = 0
    aliased_characters: int = 0

    def document(self) -> Document:
        event = next(self.events)
        while not isinstance(event, (yaml.DocumentStartEvent, yaml.StreamEndEvent)):
            event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            raise ManifestError(f"{self.name}:1:1: is empty: a manifest has at least name, model and prompts")
        root = self.node(next(self.events))
        next(self.events)
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            line = event.start_mark.line + 1
            raise ManifestError(
                f"{self.name}:{line}:1: a second document begins: a file is one manifest, split it at ---"
            )
        return Document(root, tuple(self.problems))

    def node(self, event: Any) -> Node:
        anchor = event.anchor
        if type(event) is yaml.AliasEvent:
            return self.alias(event)
        if anchor is None:
            return self.scalar(event) if type(event) is yaml.ScalarEvent else self.collection(event)
        self.anchors[anchor] = None
        values, characters = self.values, self.characters
        node = self.scalar(event) if type(event) is yaml.ScalarEvent else self.collection(event)
        self.anchors[anchor] = (node, self.values - values, self.characters - characters)
        return node

    def alias(self, event: Any) -> Node:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        found = self.anchors.get(event.anchor)
        if found is None:
            what = "is part of what it names" if event.anchor in self.anchors else "names no anchor before it"
            raise ManifestError(
                f"{self.name}:{line}:{column}: the alias *{event.anchor} {what}: write it out"
            )
        node, values, characters = found
        self.values += values
        self.characters += characters
        self.aliased_values += values
        self.aliased_characters += characters
        if self.aliased_values > MAX_ALIASED_VALUES or self.aliased_characters > MAX_BYTES:
            raise ManifestError(
                f"{self.name}:{line}:{column}: the aliases up to *{event.anchor} stand for more than"
                f" {MAX_ALIASED_VALUES} values or {MAX_BYTES >> 20} MiB: write fewer of them"
            )
        return node

    def refuse(self, mark: Any, text: str, value: str | None = None) -> None:
        shown = None if value is None else shortened(value)
        self.problems.append(Problem(mark.line + 1, mark.column + 1, tuple(self.path), text, shown))

    def scalar(self, event: Any) -> Node:
        text: str = event.value
        mark = event.start_mark
        self.values += 1
        self.characters += len(text) + 1
        node = Node(mark.line + 1, mark.column + 1, text, text)
        plain, quoted = event.implicit
        if quoted or event.tag in ("!", _TAG + "str"):
            node.text = json.dumps(text, ensure_ascii=False) if event.style in ("'", '"') else text
            return node
        tag = event.tag
        if plain:
            tag = _TAG + "str"
            for candidate, pattern in _IMPLICIT.get(text[:1], ()):
                if pattern.match(text):
                    tag = candidate
                    break
        node.value = self.typed(tag, text, mark)
        return node

    def typed(self, tag: str, text: str, mark: Any) -> Any:
        kind = tag.removeprefix(_TAG)
        if kind in ("str", "value", "merge"):
            return text
        if kind == "null":
            return None
        if kind == "bool":
            if text.lower() in ("true", "false"):
                return text.lower() == "true"
            meant = str(text.lower() in ("yes", "on", "y")).lower()
            self.refuse(mark, f'YAML reads it as {meant}: write "{text}" in quotes, or {meant}', text)
        elif kind == "int":
            if _DECIMAL.fullmatch(text):
                return int(text)
            self.refuse(
                mark, f'YAML reads it as a number of another form: write plain digits, or "{text}"', text
            )
        elif kind == "float":
            if text.lower().endswith((".inf", ".nan")):
                return float(text.replace(".", ""))
            if _DECIMAL_POINT.fullmatch(text) and any(digit.isdigit() for digit in text):
                return float(text)
            self.refuse(
                mark, f'YAML reads it as a number of another form: write plain digits, or "{text}"', text
            )
        elif kind == "timestamp":
            self.refuse(mark, f'YAML reads it as a date: write "{text}" in quotes', text)
        else:
            self.refuse(mark, f"the tag {tag.replace(_TAG, '!!')} is not allowed: remove it", text)
        return REFUSED

    def collection(self, event: Any) -> Node:
        mark = event.start_mark
        if len(self.path) >= MAX_DEPTH:
            raise ManifestError(
                f"{self.name}:{mark.line + 1}:{mark.column + 1}: lists and mappings are nested deeper than"
                f" {MAX_DEPTH}: flatten them"
            )
        self.values += 1
        self.characters += 1
        mapping = type(event) is yaml.MappingStartEvent
        kind = "map" if mapping else "seq"
        if event.tag not in (None, "!", _TAG + kind):
            self.refuse(mark, f"the tag {event.tag.replace(_TAG, '!!')} is not allowed: remove it")
        node = Node(mark.line + 1, mark.column + 1, None)
        if mapping:
            self.mapping(node)
        else:
            children: list[Node] = []
            while type(event := next(self.events)) is not yaml.SequenceEndEvent:
                self.path.append(len(children))
                children.append(self.node(event))
                self.path.pop()
            node.children = children
            node.value = [child.value for child in children]
        return node

    def mapping(self, node: Node) -> None:
        children: dict[str, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        merged: list[Node] = []
        while type(event := next(self.events)) is not yaml.MappingEndEvent:
            mark = event.start_mark
            self.path.append("<key>")
            key = self.node(event)
            self.path.pop()
            if not isinstance(key.value, str):
                if key.value is not REFUSED:
                    written = key.text if key.text is not None else "a list or mapping"
                    self.refuse(mark, f"the key {shortened(written)} is not text: write it in quotes")
                self.below("?")
                continue
            name = key.value
            if name == "<<" and key.text == "<<":
                merged.append(self.below(name))
                continue
            child = self.below(name)
            if name in children:
                self.path.append(name)
                first = keys[name][0]
                self.refuse(mark, f"the key is duplicated, first on line {first}: remove one")
                self.path.pop()
                continue
            children[name] = child
            keys[name] = (mark.line + 1, mark.column + 1)
        for source in merged:
            self.merge(node, source, children, keys)
        node.children = children
        node.keys = keys
        node.value = {name: child.value for name, child in children.items()}

    def below(self, name: str) -> Node:
        self.path.append(name)
        child = self.node(next(self.events))
        self.path.pop()
        return child

    def merge(
        self, node: Node, source: Node, children: dict[str, Node], keys: dict[str, tuple[int, int]]
    ) -> None:
        """Add what `<<: *name` brings; the mapping's own keys win, then the earlier source."""
        for part in source.children if isinstance(source.children, list) else [source]:
            if not isinstance(part.children, dict):
                path = (*self.path, "<<")
                self.problems.append(Problem(part.line, part.column, path, "must be a mapping"))
                continue
            for name, child in part.children.items():
                if name not in children:
                    children[name] = child
                    keys[name] = (part.keys or {}).get(name, (node.line, node.column))
