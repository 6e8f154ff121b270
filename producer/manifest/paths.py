"""A manifest's paths: what it reads is relative to the manifest, what it writes to the current directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.errors import ManifestError
from jobs.models import is_folder_name
from producer.manifest.parts import PromptSource
from producer.manifest.problems import as_written, report
from producer.manifest.source_files import source_trouble
from producer.manifest.text_lines import text_lines
from producer.manifest.yaml_marks import REFUSED, Document, Location, Problem, dotted

if TYPE_CHECKING:
    from producer.manifest.manifest import Manifest

_MAX_VALUES = 100_000
"""Lines in a variable's file: they stand in the manifest as if they had been written there."""


@dataclass(frozen=True, slots=True)
class AbsolutePaths:
    """What to change in a manifest, and where its paths stand in the file."""

    update: dict[str, Any]
    places: dict[Location, str]


def put_variable_files(raw: dict[str, Any], document: Document, folder: Path) -> Iterator[Problem]:
    """Put the lines of each file that a variable names in the place of its name."""
    lines = raw.get("prompts")
    for index, line in enumerate(lines if isinstance(lines, list) else ()):
        variables = line.get("variables") if isinstance(line, dict) else None
        if not isinstance(variables, dict):
            continue
        for name, value in variables.items():
            if not isinstance(value, str):
                continue
            try:
                file = folder.absolute() / Path(value).expanduser()
                variables[name] = _values(file)
            except (ManifestError, RuntimeError, ValueError) as error:
                path = ("prompts", index, "variables", name)
                yield Problem(*document.place(path), f"{dotted(path)} = {value}: {error}")
                variables[name] = REFUSED


def _values(file: Path) -> list[str]:
    values: list[str] = []
    for number, text in text_lines(file):
        if isinstance(text, ManifestError):
            raise ManifestError(f"{file}:{number}: {text}")
        if text.strip():
            values.append(text.strip())
        if len(values) > _MAX_VALUES:
            raise ManifestError(f"{file}: holds more than {_MAX_VALUES} lines: use a prompt file")
    if not values:
        raise ManifestError(f"{file}: holds no line: write one value a line")
    return values


def absolute_paths(manifest: Manifest, path: Path, document: Document) -> AbsolutePaths:
    """The manifest's paths made absolute; `path` is its own. Raises ManifestError for what is not there."""
    places: dict[Location, str] = {}
    problems: list[Problem] = []

    def absolute(base: Path, text: str, at: Location) -> str:
        line, column = document.place(at)
        places[at] = f"{path}:{line}:{column}"
        try:
            wanted = base.absolute() / Path(text).expanduser()
        except RuntimeError:
            problems.append(
                Problem(line, column, f"{dotted(at)} = {text}: there is no such user: write it out")
            )
            return text
        return str(wanted.resolve() if ".." in wanted.parts else wanted)

    def found(index: int, source: PromptSource) -> PromptSource:
        at = as_written(("prompts_from", index, "file"), document)
        before = len(problems)
        source = source.model_copy(update={"file": absolute(path.parent, source.file, at)})
        try:
            trouble = source_trouble(source) if len(problems) == before else None
        except OSError as error:
            trouble = f"cannot be read: {error.strerror}"
        if trouble is not None:
            problems.append(Problem(*document.place(at), f"{dotted(at)} = {source.file}: {trouble}"))
        return source

    update: dict[str, Any] = {}
    output = f"out/{manifest.name}" if manifest.output is None else manifest.output
    # One folder under two names (a symbolic link) would be two outputs to the ledger.
    update["output"] = os.path.realpath(absolute(Path(), output, ("output",)))
    for field in ("model", "revision"):
        line, column = document.place((field,))
        places[(field,)] = f"{path}:{line}:{column}"
    if is_folder_name(manifest.model):
        update["model"] = absolute(path.parent, manifest.model, ("model",))
    lines = list(manifest.prompts)
    for index, prompt in enumerate(lines):
        if not isinstance(prompt, str) and prompt.init_latents is not None:
            file = absolute(path.parent, prompt.init_latents, ("prompts", index, "init_latents"))
            lines[index] = prompt.model_copy(update={"init_latents": file})
    update["prompts"] = tuple(lines)
    update["prompts_from"] = tuple(found(*numbered) for numbered in enumerate(manifest.prompts_from))
    if problems:
        raise ManifestError(report(str(path), problems))
    return AbsolutePaths(update, places)
