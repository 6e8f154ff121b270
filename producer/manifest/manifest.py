"""The manifest that a YAML file holds, with everything that is wrong in the file reported by its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, PrivateAttr, ValidationError

from jobs.arguments import arguments_of
from jobs.errors import ManifestError, ModelError, OutputError
from jobs.models.further_models import resolve_controlnet
from jobs.models.models import FurtherRef, IpAdapterRef, ModelRef, resolve_model
from jobs.output.shard_names import FOLDER_LIMIT
from jobs.output.shard_table import check_parquet
from jobs.plain_file import open_plain
from jobs.request import settings_in
from producer.manifest.document import Location, dotted
from producer.manifest.fields import PathText
from producer.manifest.parts import PromptLine
from producer.manifest.paths import absolute_paths, default_output, with_variable_files
from producer.manifest.problems import Problems
from producer.manifest.prompt_texts import first_marked, prompt_texts
from producer.manifest.relations import find_conflicts
from producer.manifest.written import TEMPLATE_COLUMNS, WrittenManifest
from producer.manifest.yaml_marks import MAX_BYTES, read_yaml

_CHECKED_LATER: Final = frozenset(
    {"init_latents", *(name for name in settings_in("settings") if name != "seed")}
)
"""What a model or a file has a say in."""
_ADDED_LATER: Final[Mapping[str, Any]] = {
    "controlnet": [],
    "ip_adapter": None,
    "syntax": "plain",
    "wildcards": None,
    "inputs": "copy",
    "lora_folder": None,
    "sample": None,
    "sample_seed": None,
}
"""Keys that a manifest is kept without while they are as they were before they existed -> that value."""

AUTO_PICTURES: Final = 1_000
AUTO_BYTES: Final = 300_000_000
"""What `shard_size: auto` aims at: the one that is reached first."""


class Manifest(WrittenManifest):
    """A job whose manifest was read: its paths are absolute, and it knows where they were written."""

    output: PathText
    """The folder to write, without links, or a place in a bucket."""

    _places: Mapping[Location, str] = PrivateAttr(default_factory=dict)
    _folder: Path | None = PrivateAttr(default=None)

    @classmethod
    def from_written(
        cls,
        written: WrittenManifest,
        absolute: Mapping[str, Any],
        places: Mapping[Location, str],
        folder: Path | None = None,
    ) -> Manifest:
        """`written` with the fields of `absolute` in the place of its own.

        `places` has `FILE:LINE:COLUMN` of the values that are checked later: the model and what it takes.
        `folder`: the manifest's own, absolute.
        """
        fields = {name: getattr(written, name) for name in WrittenManifest.model_fields}
        # The fields were validated as the written manifest's; 100,000 prompts need not be a second time.
        manifest = cls.model_construct(**(fields | dict(absolute)))
        manifest._places = places
        manifest._folder = folder
        return manifest

    def __eq__(self, other: object) -> bool:
        """Whether both say the same; where it was written does not count."""
        return isinstance(other, Manifest) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    @property
    def folder(self) -> Path | None:
        """The folder of the manifest's file, absolute; None where it is not known."""
        return self._folder

    def in_folder(self, folder: Path) -> Manifest:
        """The same, read from another folder, an absolute one."""
        moved = self.model_copy()
        moved._folder = folder
        return moved

    def place(self, *path: str | int) -> str:
        """`FILE:12:10: prompts[3].init_latents`, or the field alone when the place is not known."""
        known = self._places.get(path)
        return dotted(path) if known is None else f"{known}: {dotted(path)}"

    def resolve_model(self) -> ModelRef:
        """The exact weights of `model` at `revision`, and of every ControlNet and the IP-Adapter beside it.

        Raises ModelError that names the manifest's line.
        """
        try:
            model = resolve_model(self.model, self.revision)
        except ModelError as error:
            field = "revision" if str(error).startswith("revision") else "model"
            place = self.place(field).removesuffix(field)
            raise ModelError(f"{place}{error}") from None
        return replace(
            model, controlnets=tuple(self._controlnets(model)), ip_adapter_ref=self._ip_adapter(model)
        )

    def _controlnets(self, model: ModelRef) -> Iterator[FurtherRef]:
        """The exact weights of every ControlNet. Raises ModelError that names the manifest's line."""
        for index, written in enumerate(self.controlnet):
            try:
                found = resolve_controlnet(written.model, written.revision, model)
            except ModelError as error:
                place = self.place("controlnet", index).removesuffix(f"controlnet[{index}]")
                raise ModelError(f"{place}{error}") from None
            yield replace(found, scale=written.scale)

    def _ip_adapter(self, model: ModelRef) -> IpAdapterRef | None:
        """The exact file and image encoder of the IP-Adapter. Raises ModelError that names its line."""
        written = self.ip_adapter
        if written is None:
            return None
        # What reads weights' headers, which few manifests need.
        from jobs.models.ip_adapter import resolve_ip_adapter

        try:
            return resolve_ip_adapter(written.weights, written.encoder, model, written.sha256)
        except ModelError as error:
            place = self.place("ip_adapter").removesuffix("ip_adapter")
            raise ModelError(f"{place}{error}") from None

    def pinned(self, model: ModelRef) -> Manifest:
        """The same with the revision of its model, and with the model's defaults for what it leaves open."""
        settings = self.settings.settled(model.defaults)
        controlnets = tuple(
            written.model_copy(update={"revision": found.revision})
            for written, found in zip(self.controlnet, model.controlnets, strict=True)
        )
        update = {"revision": model.revision, "settings": settings, "controlnet": controlnets}
        if self.ip_adapter is not None and model.ip_adapter_ref is not None:
            update["ip_adapter"] = self.ip_adapter.pinned(model.ip_adapter_ref)
        return self.model_copy(update=update)

    @property
    def pictures_a_shard(self) -> int:
        """`shard_size`, or as many as a folder gets at most; of auto the most that it chooses."""
        size = AUTO_PICTURES if self.shard_size == "auto" else self.shard_size
        return min(size, FOLDER_LIMIT) if self.layout == "files" else size

    @property
    def bytes_a_shard(self) -> int:
        """The most that `shard_size: auto` chooses, by estimate; 0 for a number."""
        return AUTO_BYTES if self.shard_size == "auto" else 0

    def column_names(self) -> tuple[str, ...]:
        """The user's own columns in the order in which they first appear."""
        names: dict[str, None] = {}
        for line in self.prompts:
            if isinstance(line, PromptLine) and line.columns is not None:
                names.update(dict.fromkeys(line.columns))
        for source in self.prompts_from:
            names.update(dict.fromkeys(source.columns))
        if self.syntax == "dynamic":
            names.update(dict.fromkeys(TEMPLATE_COLUMNS))
        return tuple(names)

    def to_json(self) -> dict[str, Any]:
        """A mapping of JSON values from which `from_json` makes an equal manifest; defaults written out."""
        mapping = self.model_dump(mode="json", exclude={"prompts", "prompts_from", "sweep"})
        for name, usual in _ADDED_LATER.items():
            # A manifest that was kept before the key existed says the same as one that leaves it alone.
            if mapping[name] == usual:
                del mapping[name]
        swept = self.sweep.model_dump(mode="json", exclude_none=True)
        if swept:
            mapping["sweep"] = swept
        if self.prompts_from:
            mapping["prompts_from"] = [source.model_dump(mode="json") for source in self.prompts_from]
        if self.prompts:
            mapping["prompts"] = [
                line if isinstance(line, str) else line.model_dump(mode="json", exclude_unset=True)
                for line in self.prompts
            ]
        return mapping

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_json` wrote. Raises ManifestError with the fields that are wrong."""
        try:
            written = WrittenManifest.model_validate(dict(mapping))
        except ValidationError as error:
            problems = Problems("manifest")
            problems.add_errors(error, WrittenManifest)
            raise problems.error() from None
        output = default_output(written.name) if written.output is None else written.output
        return cls.from_written(written, {"output": output}, {})


def load_manifest(path: Path) -> Manifest:
    """The manifest in a YAML file, checked whole, its paths absolute.

    Raises ManifestError with a line for each thing that is wrong: `FILE:LINE:COLUMN: field = value: …`.
    """
    document = read_yaml(_read(path), str(path))
    problems = Problems(str(path), document)
    raw = document.root.value
    if not isinstance(raw, dict):
        raise ManifestError(f"{problems.place(())}: must be a mapping with at least name, model and prompts")
    raw = with_variable_files(raw, path.parent, problems)
    written = None
    try:
        written = WrittenManifest.model_validate(raw)
    except ValidationError as error:
        problems.add_errors(error, WrittenManifest)
    find_conflicts(raw, problems, PromptLine.model_fields)
    if written is None or problems:
        raise problems.error()
    if written.layout == "webdataset":
        _check_parquet(problems)
    absolute = absolute_paths(written, path.parent, problems)
    if problems:
        raise problems.error()
    return Manifest.from_written(written, absolute, _places(written, problems), path.parent.absolute())


def _check_parquet(problems: Problems) -> None:
    """Raises ManifestError where shards could not be written, before a worker finds out."""
    try:
        check_parquet()
    except OutputError as error:
        raise ManifestError(f"{problems.place(('layout',))}: {error}") from None


def _places(written: WrittenManifest, problems: Problems) -> dict[Location, str]:
    """Where the values stand that are checked after the file was read."""
    paths: list[Location] = [("model",), ("revision",), ("ip_adapter",), ("lora_folder",)]
    paths += _below(("settings",), written.settings)
    for name, values in written.sweep.swept().items():
        for index, value in enumerate(values):
            paths += _with_arguments(("sweep", name, index), name, value)
    reads_syntax = written.settings.syntax != "plain" or "syntax" in written.sweep.swept()  # type: ignore[attr-defined]
    for index, line in enumerate(written.prompts):
        if isinstance(line, PromptLine):
            paths += _below(("prompts", index), line)
        if written.image_format == "jpeg":
            paths.append(("prompts", index))
        if reads_syntax or "syntax" in getattr(line, "model_fields_set", ()):
            paths.append(("prompts", index) if isinstance(line, str) else ("prompts", index, "prompt"))
    paths += [first for _, first in first_marked(written).values()]
    if written.syntax == "dynamic":
        paths += [path for path, _ in prompt_texts(written)]
    places = {path: problems.place(path) for path in paths}
    for index in range(len(written.controlnet)):
        places["controlnet", index] = problems.place(problems.as_written(("controlnet", index)))
    return places


def _below(path: Location, part: BaseModel) -> Iterator[Location]:
    """The paths of what a part gives of an image."""
    for name in part.model_fields_set & _CHECKED_LATER:
        yield from _with_arguments((*path, name), name, getattr(part, name))
    yield from ((*path, name) for name in part.model_extra or ())


def _with_arguments(path: Location, name: str, value: Any) -> Iterator[Location]:
    yield path
    if name == "arguments" and value is not None:
        yield from ((*path, argument) for argument in arguments_of(value))


def json_schema() -> dict[str, Any]:
    """The JSON schema of a manifest, with descriptions and defaults, for editors."""
    schema = WrittenManifest.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "imagemill manifest",
    }


def _read(path: Path) -> bytes:
    try:
        with open_plain(path) as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
