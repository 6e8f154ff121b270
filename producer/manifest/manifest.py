"""The YAML file a person writes, as validated models, with the place of everything that is wrong in it.

What a manifest reads (a model's folder, initial latents) is relative to the manifest; what is written
(`output`) is relative to the current directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from jobs.errors import ManifestError, ModelError, OutputError
from jobs.models import ModelRef, resolve_model
from jobs.output.shard_table import check_parquet
from jobs.output.stored_shard import LayoutName
from producer.manifest.fields import (
    ImageFormat,
    ModelName,
    PathText,
    Precision,
    Quality,
    Retention,
    Revision,
    Text,
)
from producer.manifest.parts import DefaultSettings, PromptLine, PromptSource, Strict, Sweep
from producer.manifest.paths import absolute_paths, put_variable_files
from producer.manifest.problems import problems_of, report
from producer.manifest.relations import problems_between_lines
from producer.manifest.yaml_marks import MAX_BYTES, Document, Location, dotted, read_yaml


def _text_or_mapping(value: object) -> str:
    return "mapping" if isinstance(value, (dict, PromptLine)) else "text"


def _as_sources(value: object) -> object:
    """A file's bare name as a source, one source as a list of one."""
    several = value if isinstance(value, (list, tuple)) else [value]
    return [{"file": one} if isinstance(one, str) else one for one in several]


_Written = str | PromptSource | Annotated[list[str | PromptSource], Field(min_length=1)]


def _prompts_or_files(schema: dict[str, Any]) -> None:
    """A manifest names its prompts, or files of them, or both."""
    for name in ("prompts", "prompts_from", "sweep"):
        schema["properties"][name].pop("default", None)
    schema["anyOf"] = [{"required": ["prompts"]}, {"required": ["prompts_from"]}]


class Manifest(Strict):
    """A job as it was written, with its paths made absolute."""

    model_config = ConfigDict(json_schema_extra=_prompts_or_files)

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9_-])?$")]
    """The job's name: lower-case letters, digits, ".", "_" and "-"; jobs are called NAME-1, NAME-2, …"""
    model: ModelName
    """A built-in model, a Hugging Face id, or a pipeline folder (begins with ./ ../ ~ or /)."""
    revision: Revision | None = None
    """The model's commit, branch or tag, or the sha256:… of a folder."""
    output: PathText | None = None
    """The folder to write, relative to the current directory; out/NAME when left out. Links are resolved."""
    layout: LayoutName = "files"
    """How the output is laid out: `files` is a Hugging Face imagefolder, `webdataset` a tar and a parquet for
    each shard."""
    image_format: ImageFormat = "png"
    """The pictures' file format."""
    image_quality: Quality = 95
    """Of jpeg and webp; 100 makes webp lossless. png ignores it."""
    precision: Precision = "auto"
    """auto is bf16 on CUDA and fp32 on CPU; amp is autocast."""
    mode: Literal["exact", "fast"] = "exact"
    """exact gives each picture the same bytes whatever is rendered with it; fast gives that up for a faster
    end of the job."""
    shard_size: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Pictures in one task, and in one folder of the output."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """0 is soonest, 9 last."""
    settings: DefaultSettings = DefaultSettings()
    """The settings of every prompt that has none of its own."""
    max_failures: Annotated[int, Field(ge=1)] | None = None
    """The job stops after this many failed pictures; null never stops it."""
    retention: Retention = 7 * 86400
    """How long Redis keeps a finished job: "7d", "12h" or seconds. The output stays."""
    prompts: Annotated[
        tuple[
            Annotated[
                Annotated[Text, Tag("text")] | Annotated[PromptLine, Tag("mapping")],
                Discriminator(_text_or_mapping),
            ],
            ...,
        ],
        Field(min_length=1, strict=False),
    ] = ()
    """What to draw: texts, or mappings with a prompt and settings of its own."""
    prompts_from: Annotated[
        tuple[PromptSource, ...],
        Field(min_length=1, strict=False),
        BeforeValidator(_as_sources, json_schema_input_type=_Written),
    ] = ()
    """Files of prompts, after those of `prompts`: names, patterns, or mappings with `file`."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """stop submits nothing while a row of a prompt file is wrong; skip leaves such rows out and says so."""
    sweep: Sweep = Sweep()
    """Settings of which every prompt, of files too, takes all combinations."""

    _places: dict[Location, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if not self.prompts and not self.prompts_from:
            what = "is missing: add it, or prompts_from"
            raise PydanticCustomError("column", "{what}", {"what": what, "below": "prompts"})
        return self

    def __eq__(self, other: object) -> bool:
        """Whether both say the same; where it was written does not count."""
        return isinstance(other, Manifest) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def place(self, *path: str | int) -> str:
        """`FILE:12:10: prompts[3].init_latents`, or the field alone when the place is not known."""
        known = self._places.get(path)
        return dotted(path) if known is None else f"{known}: {dotted(path)}"

    def resolve_model(self) -> ModelRef:
        """The exact weights of `model` at `revision`. Raises ModelError that names the manifest's line."""
        try:
            return resolve_model(self.model, self.revision)
        except ModelError as error:
            field = "revision" if str(error).startswith("revision") else "model"
            place = self.place(field).removesuffix(field)
            raise ModelError(f"{place}{error}") from None

    def column_names(self) -> tuple[str, ...]:
        """The user's own columns in the order in which they first appear."""
        names: dict[str, None] = {}
        for line in self.prompts:
            if isinstance(line, PromptLine) and line.columns is not None:
                names.update(dict.fromkeys(line.columns))
        for source in self.prompts_from:
            names.update(dict.fromkeys(source.columns))
        return tuple(names)

    def to_json(self) -> dict[str, Any]:
        """A mapping of JSON values from which `from_json` makes an equal manifest; defaults written out."""
        mapping = self.model_dump(mode="json", exclude={"prompts", "prompts_from", "sweep"})
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
            return cls.model_validate(dict(mapping))
        except ValidationError as error:
            problems = problems_of(error, None, Manifest)
            raise ManifestError(report("manifest", problems)) from None


def load_manifest(path: Path) -> Manifest:
    """The manifest in a YAML file, checked whole, its paths absolute.

    Raises ManifestError with a line for each thing that is wrong: `FILE:LINE:COLUMN: field = value: …`.
    """
    contents = _read(path)
    document = read_yaml(contents, str(path))
    if not isinstance(document.root.value, dict):
        line, column = document.root.line, document.root.column
        raise ManifestError(
            f"{path}:{line}:{column}: must be a mapping with at least name, model and prompts"
        )
    raw = document.root.value
    problems = [*document.problems, *put_variable_files(raw, document, path.parent)]
    manifest = None
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, document, Manifest)
    problems += problems_between_lines(raw, document, PromptLine.model_fields)
    if manifest is None or problems:
        raise ManifestError(report(str(path), problems))
    if manifest.layout == "webdataset":
        _check_parquet(path, document)
    absolute = absolute_paths(manifest, path, document)
    resolved = manifest.model_copy(update=absolute.update)
    resolved._places.update(absolute.places)
    return resolved


def _check_parquet(path: Path, document: Document) -> None:
    """Raises ManifestError where shards could not be written: found out now, and not by the first worker."""
    try:
        check_parquet()
    except OutputError as error:
        line, column = document.place(("layout",))
        raise ManifestError(f"{path}:{line}:{column}: {error}") from None


def json_schema() -> dict[str, Any]:
    """The JSON schema of a manifest, with descriptions and defaults, for editors."""
    schema = Manifest.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "imagemill manifest",
    }


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
