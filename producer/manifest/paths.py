"""A manifest's paths: what it reads is relative to the manifest, what it writes to the current directory."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jobs.errors import InputError, ManifestError
from jobs.location import BucketPlace, NoLocation, names_bucket
from jobs.models.models import is_path
from jobs.request import PICTURES
from producer.bucket_files.fetched_files import near
from producer.manifest.document import REFUSED, Location
from producer.manifest.parts import PromptLine
from producer.manifest.problems import Problems
from producer.manifest.prompt_source import PromptSource
from producer.manifest.source_files import source_trouble
from producer.manifest.text_lines import text_lines
from producer.manifest.written import WrittenManifest
from producer.manifest.written_files import WITH_FILES
from producer.manifest.written_pictures import escaped

_MAX_VALUES = 100_000
"""Lines in a variable's file: they are held as if they had been written in the manifest."""


def with_variable_files(raw: Mapping[str, Any], folder: Path, problems: Problems) -> Mapping[str, Any]:
    """`raw` with the lines of each file that a variable names in the place of the file's name.

    A file that cannot be read is added to `problems`, and REFUSED takes its place.
    """
    lines = raw.get("prompts")
    if not isinstance(lines, list):
        return raw

    def filled(index: int, line: Any) -> Any:
        variables = line.get("variables") if isinstance(line, dict) else None
        if not isinstance(variables, dict):
            return line
        read: dict[str, Any] = {}
        for name, value in variables.items():
            if isinstance(value, str):
                try:
                    read[name] = _values(
                        near(value) if names_bucket(value) else folder.absolute() / Path(value).expanduser()
                    )
                except (ManifestError, InputError, RuntimeError, ValueError) as error:
                    problems.add(("prompts", index, "variables", name), str(error), value=value)
                    read[name] = REFUSED
        return line | {"variables": variables | read}

    return {**raw, "prompts": [filled(index, line) for index, line in enumerate(lines)]}


def _values(file: Path) -> list[str]:
    """The file's lines without blanks around them; blank ones and those that begin with # are no values."""
    values: list[str] = []
    for number, line in text_lines(file, None):
        if isinstance(line, ManifestError):
            raise ManifestError(f"{file}:{number}: {line}")
        text = line.strip()
        if text and not text.startswith("#"):
            values.append(text)
        if len(values) > _MAX_VALUES:
            raise ManifestError(f"{file}: holds more than {_MAX_VALUES} lines: use a prompt file")
    if not values:
        raise ManifestError(f"{file}: holds no value: write one a line")
    return values


def default_output(name: str) -> str:
    """The folder, without links, that a manifest called `name` writes when it names none."""
    return os.path.realpath(f"out/{name}")


def absolute_paths(written: WrittenManifest, folder: Path, problems: Problems) -> dict[str, Any]:
    """The fields of the manifest that hold paths, made absolute; what is not there is added to `problems`.

    `folder` is the manifest's own.
    """

    def absolute(base: Path, text: str, path: Location) -> str:
        if names_bucket(text):
            return text
        try:
            wanted = base.absolute() / Path(text).expanduser()
        except RuntimeError:
            problems.add(path, "there is no such user: write it out", value=text)
            return text
        if wanted.name == "..":
            return str(wanted.resolve())
        # A link at the end keeps its name: a single file's configuration is found by it.
        return str(wanted.parent.resolve() / wanted.name if ".." in wanted.parts else wanted)

    def here(text: str, path: Location) -> str:
        """The same of what is read on this machine alone."""
        if names_bucket(text):
            problems.add(path, "is read from no bucket: copy it to this machine", value=text)
            return text
        return absolute(folder, text, path)

    def found(index: int, source: PromptSource) -> PromptSource:
        path = problems.as_written(("prompts_from", index, "file"))
        before = len(problems)
        file = absolute(folder, source.file, path)
        if not names_bucket(file) and glob.has_magic(source.file) and not Path(file).exists():
            # It is a pattern, and its folder, which may have brackets in its own name, is none.
            file = absolute(Path(glob.escape(str(folder.absolute()))), source.file, path)
        source = source.with_file(file)
        try:
            trouble = source_trouble(source) if len(problems) == before else None
        except InputError as error:
            trouble = str(error)
        except OSError as error:
            trouble = f"cannot be read: {error.strerror}"
        if trouble is not None:
            problems.add(path, trouble, value=source.file)
        return source

    fields: dict[str, Any] = {}
    if written.output is None:
        fields["output"] = default_output(written.name)
    elif names_bucket(written.output):
        try:
            fields["output"] = str(BucketPlace.parse(written.output))
        except NoLocation as error:
            problems.add(("output",), str(error), value=written.output)
        if written.layout != "webdataset":
            problems.add(
                ("layout",), "must be webdataset where the output is in a bucket", value=written.layout
            )
    else:
        # One folder under two names (a symbolic link) would be two outputs to the ledger.
        fields["output"] = os.path.realpath(absolute(Path(), written.output, ("output",)))
    if is_path(written.model) or names_bucket(written.model):
        fields["model"] = here(written.model, ("model",))
    # Braces in the folder's own name are not those of a pattern.
    braced = Path(escaped(str(folder.absolute())))
    fields["controlnet"] = tuple(
        one.model_copy(update={"model": here(one.model, problems.as_written(("controlnet", index, "model")))})
        if is_path(one.model) or names_bucket(one.model)
        else one
        for index, one in enumerate(written.controlnet)
    )
    if written.ip_adapter is not None:
        fields["ip_adapter"] = written.ip_adapter.with_paths(
            lambda text, key: here(text, problems.as_written(("ip_adapter", key)))
        )
    lines = list(written.prompts)
    for index, line in enumerate(lines):
        if not isinstance(line, str) and line.init_latents is not None:
            file = absolute(folder, line.init_latents, ("prompts", index, "init_latents"))
            lines[index] = line.model_copy(update={"init_latents": file})
    fields |= _with_absolute_pictures(written, lines, lambda name: absolute(braced, name, ("image",)))
    lines = list(fields["prompts"])
    written = written.model_copy(update={name: fields[name] for name in ("settings", "sweep")})
    fields |= with_changed_lists(
        written,
        lines,
        lambda path, name, text: WITH_FILES[name](text, lambda file: absolute(folder, file, path)),
    )
    if written.lora_folder is not None:
        fields["lora_folder"] = here(written.lora_folder, ("lora_folder",))
    if written.syntax == "dynamic":
        wildcards = "wildcards" if written.wildcards is None else written.wildcards
        fields["wildcards"] = here(wildcards, ("wildcards",))
    fields["prompts_from"] = tuple(found(*numbered) for numbered in enumerate(written.prompts_from))
    return fields


def _with_absolute_pictures(
    written: WrittenManifest, lines: list[str | PromptLine], absolute: Callable[[str], str]
) -> dict[str, Any]:
    """Settings, sweep and `lines` with the absolute names of their pictures."""

    def changed(part: Any, name: str, text: Any) -> Any:
        several = isinstance(text, tuple)
        return part.model_copy(update={name: tuple(map(absolute, text)) if several else absolute(text)})

    def all_changed(part: Any) -> Any:
        for name in PICTURES:
            if not isinstance(part, str) and (text := getattr(part, name, None)) is not None:
                part = changed(part, name, text)
        return part

    return {
        "settings": all_changed(written.settings),
        "sweep": all_changed(written.sweep),
        "prompts": tuple(map(all_changed, lines)),
    }


def with_changed_lists(
    written: WrittenManifest,
    lines: Iterable[str | PromptLine],
    changed: Callable[[Location, str, str], str],
) -> dict[str, Any]:
    """The fields of a manifest whose lists name files, those of `lines` as its prompts, with other lists.

    changed: gets a list's place, the setting's name, and its canonical text.
    """

    def with_lists(part: Any, *path: str | int) -> Any:
        given = {name: getattr(part, name, None) for name in WITH_FILES}
        update = {
            name: changed((*path, name), name, text) for name, text in given.items() if text is not None
        }
        return part.model_copy(update=update) if update else part

    swept = {
        name: tuple(changed(("sweep", name, at), name, text) for at, text in enumerate(texts))
        for name, texts in written.sweep.swept().items()
        if name in WITH_FILES
    }
    return {
        "settings": with_lists(written.settings, "settings"),
        "prompts": tuple(
            line if isinstance(line, str) else with_lists(line, "prompts", index)
            for index, line in enumerate(lines)
        ),
        "sweep": written.sweep.model_copy(update=swept) if swept else written.sweep,
    }
