"""Prompts in .json: a list of texts or objects, a mapping of ids to them, or COCO's captions.

    ["a fox", {"prompt": "a hen", "seed": 3}]      each is a prompt
    {"k1": "a fox", "k2": {"prompt": "a hen"}}     so is each here, and its key is its id
    {"annotations": [{"caption": "a fox", …}, …]}  COCO: what is beside the annotations is left aside
    {"prompts": […]}                               what the only key holds
    {"prompt": "a fox", "seed": 3}                 one prompt; several such one after the other are several

The text is held whole, its values one at a time.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from jobs.errors import ManifestError
from jobs.wording import shortened, some
from producer.manifest.prompt_source import PromptSource
from producer.manifest.text_lines import Record, opened, undecodable
from producer.prompt_files.json_lines import of_bare_value, strict_decoder

MOST = 256 << 20
"""Characters that are held; COCO's 600,000 captions with their images are 90 million."""
_PIECE = 1 << 20
_BLANK = re.compile(r"[ \t\n\r]*")
_TEXT = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TO_BRACKET = re.compile(rf'[^\[\]{{}}"]*+(?:{_TEXT}[^\[\]{{}}"]*+)*+([\[\]{{}}])', re.DOTALL)
"""Everything until the next bracket that is in no text, and the bracket."""
_PLAIN_VALUE = re.compile(rf'{_TEXT}|[^\[\]{{}},"\s]+', re.DOTALL)
_COCO = ("id", "image_id")
"""Numbers that COCO's annotations have beside their captions."""


class Place(int):
    """The line of a value that may not be alone on it; as text with its index or key: 1[17]."""

    key: str

    def __new__(cls, line: int, key: str) -> Place:
        place = super().__new__(cls, line)
        place.key = key
        return place

    def __str__(self) -> str:
        return f"{int(self)}[{self.key}]"

    __repr__ = __str__


class _Value(NamedTuple):
    """A value in the text."""

    start: int
    end: int
    kind: str
    """Its first character."""


def records(file: Path, source: PromptSource) -> Iterator[Record]:
    """Each prompt's object, at the line where it begins.

    Raises ManifestError for a file that is not JSON as a whole, and for one that holds no list of prompts.
    """
    reader = _Reader(file, source)
    values = reader.values()
    first = list(islice(values, 2))
    if len(first) == 1:
        yield from reader.whole(first[0], wrapped=False)
    else:
        # Objects one after the other, as some programs write them.
        yield from reader.rows(enumerate(chain(first, values)))


class _Reader:
    """Finds the rows in the text of one file."""

    def __init__(self, file: Path, source: PromptSource) -> None:
        self._file, self._source, self._fields = file, source, source.fields
        prompt = source.fields.get("prompt", "prompt")
        self._prompt = (prompt, prompt.partition(".")[0])
        self._asked = {*source.fields.values(), *source.columns.values(), *source.ignore}
        self._decoder = strict_decoder()
        pieces: list[str] = []
        held = 0
        with opened(file, source, newline="\n") as stream:
            self._stream = stream
            while piece := stream.read(_PIECE):
                pieces.append(piece)
                held += len(piece)
                if held > MOST:
                    raise ManifestError(
                        f"{file}: holds more than {MOST:,} characters, and a .json is held whole: make it "
                        f".jsonl, an object a line (jq -c '.[]' {file.name} > prompts.jsonl)"
                    )
        self._text = "".join(pieces)
        self._line, self._counted = 1, 0

    def values(self) -> Iterator[_Value]:
        """The values that stand one after the other in the file, mostly one."""
        at = self._after_blanks(0)
        while at < len(self._text):
            value = self._value(at)
            if value.kind != "{" and (at > 0 or value.kind != "["):
                raise self._error(at, 'holds no list of prompts: write ["a fox", …]')
            yield value
            at = self._after_blanks(value.end)

    def whole(self, value: _Value, *, wrapped: bool) -> Iterator[Record]:
        """The rows of a value that holds them all."""
        if value.kind == "[":
            yield from self.rows(enumerate(self._elements(value)))
            return
        kinds: Counter[str] = Counter()
        keys: list[str] = []
        known: dict[str, _Value] = {}
        for key, one in self._members(value):
            kinds[one.kind] += 1
            if len(keys) < 20:
                keys.append(key)
            if key in (*self._prompt, "annotations"):
                known[key] = one
        if any(name in known for name in self._prompt):
            yield from self.rows([(0, value)])
        elif "annotations" in known and known["annotations"].kind == "[":
            yield from self._captions(known["annotations"])
        elif len(keys) == 1 and not wrapped and (inner := self._only_member(value)) is not None:
            yield from self.whole(inner, wrapped=True)
        elif kinds.keys() <= {'"', "{"}:
            yield from self._mapped(value)
        else:
            lists = [key for key, one in self._members(value) if one.kind == "["]
            path = f".{lists[0]}" if lists else "[...]"
            raise self._error(
                value.start,
                f"holds no list of prompts, but an object with {some([shortened(key) for key in keys], 10)}: "
                f"write the list alone (jq '{path}' {self._file.name} > prompts.json)",
            )

    def rows(self, values: Iterable[tuple[int, _Value]]) -> Iterator[Record]:
        """Each value as a row; beside it is its index."""
        for index, value in values:
            place = self._place(value.start, str(index))
            decoded = self._decoded(value)
            if isinstance(decoded, (dict, ManifestError)):
                yield place, decoded
            else:
                yield place, of_bare_value(decoded, self._fields)

    def _mapped(self, value: _Value) -> Iterator[Record]:
        """The rows of a mapping of ids to prompts."""
        name, seen = self._fields.get("id", "id"), set[str]()
        for key, one in self._members(value):
            place = self._place(one.start, json.dumps(key, ensure_ascii=False))
            row = self._decoded(one)
            if isinstance(row, str):
                row = of_bare_value(row, self._fields)
            if key in seen:
                row = ManifestError("the key occurs twice: remove one")
            seen.add(key)
            if isinstance(row, dict) and (name in row or name.partition(".")[0] not in row):
                own = row.get(name)
                if own is None or str(own) == key:
                    row[name] = key
                elif "id" not in self._fields:
                    row = ManifestError(
                        f"has the id {shortened(str(own))} too: to take it, write `fields: {{id: id}}`"
                    )
            yield place, row

    def _captions(self, value: _Value) -> Iterator[Record]:
        """COCO's annotations; their numbers are left out where nobody asks for them."""
        for place, row in self.rows(enumerate(self._elements(value))):
            if isinstance(row, dict):
                for name in _COCO:
                    if name not in self._asked:
                        row.pop(name, None)
            yield place, row

    def _only_member(self, value: _Value) -> _Value | None:
        """The list or the mapping that an object of one key holds; None where it holds a prompt."""
        _, inner = next(self._members(value))
        if inner.kind == "[":
            return inner
        if inner.kind != "{" or any(key in self._prompt for key, _ in self._members(inner)):
            return None
        return inner

    def _decoded(self, value: _Value) -> Any:
        """What the value holds, or why it cannot be read. Raises ManifestError for what is not JSON."""
        text = self._text[value.start : value.end]
        if not text.isascii() and (trouble := undecodable(text, self._stream, self._source)) is not None:
            return trouble
        try:
            decoded, end = self._decoder.raw_decode(text)
        except json.JSONDecodeError as error:
            raise self._error(value.start + error.pos, f"not JSON: {error.msg}") from None
        except (ManifestError, ValueError) as error:
            return ManifestError(str(error))
        except RecursionError:
            return ManifestError("lists or objects are nested too deeply")
        if end != len(text):
            raise self._error(value.start + end, "not JSON: Extra data")
        return decoded

    def _elements(self, value: _Value) -> Iterator[_Value]:
        at = self._after_blanks(value.start + 1)
        while self._text[at] != "]":
            one = self._value(at)
            yield one
            at = self._next(one.end, "]")

    def _members(self, value: _Value) -> Iterator[tuple[str, _Value]]:
        at = self._after_blanks(value.start + 1)
        while self._text[at] != "}":
            name = self._value(at)
            if name.kind != '"':
                raise self._error(at, "not JSON: Expecting property name enclosed in double quotes")
            key = self._decoded(name)
            at = self._after_blanks(name.end)
            if self._text[at] != ":":
                raise self._error(at, "not JSON: Expecting ':' delimiter")
            one = self._value(self._after_blanks(at + 1))
            yield key if isinstance(key, str) else "", one
            at = self._next(one.end, "}")

    def _next(self, at: int, closing: str) -> int:
        """Where the next element or the closing bracket is. The end of the outer value was found before."""
        at = self._after_blanks(at)
        if self._text[at] == closing:
            return at
        if self._text[at] != ",":
            raise self._error(at, "not JSON: Expecting ',' delimiter")
        after = self._after_blanks(at + 1)
        if self._text[after] == closing:
            raise self._error(at, "not JSON: Illegal trailing comma")
        return after

    def _value(self, at: int) -> _Value:
        """The value that begins there. Its brackets are matched; what is in them is not looked at."""
        kind = self._text[at : at + 1]
        if kind not in ("[", "{"):
            plain = _PLAIN_VALUE.match(self._text, at)
            if plain is None:
                raise self._not_json(at)
            return _Value(at, plain.end(), kind)
        depth, end = 0, at
        while (step := _TO_BRACKET.match(self._text, end)) is not None:
            depth, end = depth + (1 if step[1] in "[{" else -1), step.end()
            if depth == 0:
                return _Value(at, end, kind)
        raise self._not_json(at)

    def _not_json(self, at: int) -> ManifestError:
        """What is wrong with a value that has no end."""
        try:
            self._decoder.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            return self._error(error.pos, f"not JSON: {error.msg}")
        except (ManifestError, ValueError, RecursionError):
            pass
        return self._error(at, "not JSON: this has no end")

    def _after_blanks(self, at: int) -> int:
        blank = _BLANK.match(self._text, at)
        return at if blank is None else blank.end()

    def _place(self, at: int, key: str) -> Place:
        """The line of a place behind the last one that was asked for."""
        self._line += self._text.count("\n", self._counted, at)
        self._counted = at
        return Place(self._line, key)

    def _error(self, at: int, what: str) -> ManifestError:
        line = self._text.count("\n", 0, at) + 1
        column = at - self._text.rfind("\n", 0, at)
        return ManifestError(f"{self._file}:{line}:{column}: {what}")
