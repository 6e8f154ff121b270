"""Collects what is wrong in one file; each problem finds its own place there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from jobs.errors import ManifestError
from jobs.wording import printable, shortened
from producer.manifest.document import REFUSED, Document, Location, Problem
from producer.manifest.wrong_values import argument_form, keys_around, unknown_key, what_is_wrong

MAX_REPORTED: Final = 20
_SHORT: Final = {"prompts_from": "file", "controlnet": "model", "ip_adapter": "file"}
"""Keys that take a list of mappings, or a mapping, or a bare name -> the key that such a name is of."""


class Problems:
    """What is wrong in one file, or in values that are in none."""

    def __init__(self, name: str, document: Document | None = None) -> None:
        """`name` begins every line of the report. `document` is the file, None for values that are in none;
        its own problems come first."""
        self.name = name
        self._document = document
        self._found = [] if document is None else list(document.problems)

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        """Each problem once, in the order of the file."""
        return iter(sorted(dict.fromkeys(self._found), key=lambda problem: (problem.line, problem.column)))

    def add(self, path: Location, what: str, *, value: str | None = None, of_key: bool = False) -> None:
        """Adds what is wrong at `path`, with the remedy.

        `value` is the value as the message shows it. With `of_key` the problem stands at the key.
        """
        line, column = (0, 0) if self._document is None else self._document.place(path, of_key=of_key)
        self._found.append(Problem(line, column, path, what, value))

    def add_errors(self, error: ValidationError, model: type[BaseModel]) -> None:
        """Adds each of pydantic's errors about a `model`, except those about values refused already."""
        errors = error.errors(include_url=False)
        unknown = {one["loc"] for one in errors if one["type"] == "extra_forbidden"}
        missing = [one["loc"] for one in errors if one["type"] == "missing"]
        for one in errors:
            # Where single arguments may stand, pydantic tells of an unknown key's value too.
            if one["type"] != "extra_forbidden" and any(
                one["loc"][:length] in unknown for length in range(1, len(one["loc"]) + 1)
            ):
                continue
            if one["input"] is REFUSED or (one["type"] == "too_short" and one["input"]):
                continue  # pydantic counts valid elements only: a list of wrong elements is not short.
            kind, context = one["type"], one.get("ctx", {})
            path = self.as_written(one["loc"])
            if "below" in context:
                path = (*path, context["below"])
            elif "at" in context:
                path = (*path[:-1], *context["at"])
            of_key = kind == "extra_forbidden" or "below" in context or len(context.get("at", ())) > 1
            if kind == "extra_forbidden":
                beside = [str(there[-1]) for there in missing if there[:-1] == one["loc"][:-1]]
                what = unknown_key(str(path[-1]), keys_around(path, model), argument_form(path), beside)
            else:
                what = what_is_wrong(kind, path, one["input"], context) or one["msg"]
            bare = kind in ("missing", "extra_forbidden", "column") or of_key
            self.add(path, what, value=None if bare else self._shown(path, one["input"]), of_key=of_key)

    def as_written(self, location: tuple[str | int, ...]) -> Location:
        """pydantic's location as the file has it: without the branch of the union that it went through, and
        without the list and the mapping that a bare name stands for."""
        if len(location) > 2 and location[0] == "prompts" and location[2] in ("text", "mapping"):
            return location[:2] + location[3:]
        if location[:1] == ("shard_size",):
            return location[:1]
        if not location or location[0] not in _SHORT or self._document is None:
            return location
        short = _SHORT[str(location[0])]
        path: Location = (location[0],)
        for step in location[1:]:
            node = self._document.find(path)
            below = node.children if node is not None else None
            if not (isinstance(step, int) and not isinstance(below, list)) and not (
                step == short and below is None
            ):
                path = (*path, step)
        return path

    def line(self, path: Location) -> int:
        """The line, from 1, of the value at `path`; 0 where it is in no file."""
        return 0 if self._document is None else self._document.place(path)[0]

    def place(self, path: Location) -> str:
        """`FILE:LINE:COLUMN` of the value at `path`; the name alone where it is in no file."""
        if self._document is None:
            return self.name
        line, column = self._document.place(path)
        return f"{self.name}:{line}:{column}"

    def report(self) -> str:
        """`FILE:LINE:COLUMN: …`, one problem a line, by place; beyond the 20th only their number."""
        ordered = list(self)
        lines = [
            f"{self.name}:{problem.line}:{problem.column}: {printable(problem.text)}"
            if problem.line
            else f"{self.name}: {printable(problem.text)}"
            for problem in ordered[:MAX_REPORTED]
        ]
        if len(ordered) > MAX_REPORTED:
            lines.append(f"{self.name}: and {len(ordered) - MAX_REPORTED} more")
        return "\n".join(lines)

    def error(self) -> ManifestError:
        """The report as an error."""
        return ManifestError(self.report())

    def _shown(self, path: Location, value: Any) -> str:
        """The value as the file has it, on one line."""
        node = None if self._document is None else self._document.find(path)
        if node is not None and node.text is not None:
            return shortened(node.text or "(nothing)")
        if isinstance(value, (list, tuple)):
            return f"a list of {len(value)}"
        if isinstance(value, Mapping):
            return "a mapping"
        return shortened(json.dumps(value, ensure_ascii=True, default=repr))
