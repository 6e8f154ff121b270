"""The YAML file a person writes, as validated models, with the place of everything that is wrong in it.

What a manifest reads (a model's folder, initial latents) is relative to the manifest; what is written
(`output`) is relative to the current directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PrivateAttr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from jobs.errors import ManifestError, ModelError
from jobs.manifest_errors import problems_between_lines, problems_of, report
from jobs.manifest_fields import (
    Count,
    Guidance,
    ImageFormat,
    LatentsFile,
    ModelName,
    PathText,
    Precision,
    Quality,
    Retention,
    Revision,
    SchedulerName,
    Seed,
    Side,
    Steps,
    Text,
    column_trouble,
)
from jobs.models import ModelRef, is_folder_name, resolve_model
from jobs.yaml_marks import MAX_BYTES, Document, Location, Problem, dotted, read_yaml


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class DefaultSettings(_Strict):
    """What every prompt has that does not say otherwise."""

    negative_prompt: Text = ""
    """What the pictures should not show."""
    height: Side = 512
    """Pixels, a multiple of 8."""
    width: Side = 512
    """Pixels, a multiple of 8."""
    num_inference_steps: Steps = 50
    """Denoising steps."""
    guidance_scale: Guidance = 7.5
    """Classifier-free guidance; 1 switches it off."""
    scheduler: SchedulerName = "LMS"
    """The sampler: A1111's, kohya's or diffusers' name, in any case."""
    seed: Seed | None = None
    """The seed of every prompt; null derives one for each picture from its settings."""
    images_per_prompt: Count = 1
    """Pictures of each prompt. With a seed they take seed, seed+1, …"""


def _leave_out_or_give(schema: dict[str, Any]) -> None:
    """Describe a key of a prompt as what may be left out but, `seed` aside, not null: its default is in
    `settings`."""
    for name, described in schema["properties"].items():
        described.pop("default", None)
        if name != "seed" and {"type": "null"} in described.get("anyOf", ()):
            choices = [choice for choice in described["anyOf"] if choice != {"type": "null"}]
            del described["anyOf"]
            described.update(choices[0] if len(choices) == 1 else {"anyOf": choices})
    schema["allOf"] = [
        {"not": {"required": ["seeds", "seed"]}},
        {"not": {"required": ["seeds", "images_per_prompt"]}},
    ]


class PromptLine(_Strict):
    """One prompt with settings of its own; a key left out (None) is as in `settings`."""

    model_config = ConfigDict(json_schema_extra=_leave_out_or_give)

    prompt: Text
    """The text to draw; "" is unconditional."""
    negative_prompt: Text | None = None
    """What the picture should not show."""
    height: Side | None = None
    """Pixels, a multiple of 8."""
    width: Side | None = None
    """Pixels, a multiple of 8."""
    num_inference_steps: Steps | None = None
    """Denoising steps."""
    guidance_scale: Guidance | None = None
    """Classifier-free guidance; 1 switches it off."""
    scheduler: SchedulerName | None = None
    """The sampler."""
    seed: Seed | None = None
    """The seed of the first picture; null derives one, whatever `settings` says."""
    images_per_prompt: Count | None = None
    """Pictures of this prompt. With a seed they take seed, seed+1, …"""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] | None = None
    """One picture for each of these seeds; excludes `seed` and `images_per_prompt` beside it."""
    id: Text | None = None
    """Your own name for the line; goes to the metadata."""
    columns: dict[str, JsonValue] | None = None
    """Your own metadata columns, any JSON values."""
    init_latents: LatentsFile | None = None
    """A .npy or .safetensors file of initial latents, [channels, h, w]; relative to the manifest."""

    @field_validator("seeds")
    @classmethod
    def _seeds_stand_alone(cls, seeds: object, info: ValidationInfo) -> object:
        for other in ("seed", "images_per_prompt"):
            if seeds is not None and info.data.get(other) is not None:
                raise PydanticCustomError(
                    "conflict", "excludes {other}: remove one of them", {"other": other}
                )
        return seeds

    @field_validator("columns")
    @classmethod
    def _columns_fit_the_metadata(cls, columns: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        for name, value in (columns or {}).items():
            trouble = column_trouble(name, value)
            if trouble is not None:
                raise PydanticCustomError("column", "{what}", {"what": trouble, "below": name})
        return columns


def _text_or_mapping(value: object) -> str:
    return "mapping" if isinstance(value, (dict, PromptLine)) else "text"


class Manifest(_Strict):
    """A job as it was written, with its paths made absolute."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9_-])?$")]
    """The job's name: lower-case letters, digits, ".", "_" and "-"; jobs are called NAME-1, NAME-2, …"""
    model: ModelName
    """A built-in model, a Hugging Face id, or a pipeline folder (begins with ./ ../ ~ or /)."""
    revision: Revision | None = None
    """The model's commit, branch or tag, or the sha256:… of a folder."""
    output: PathText | None = None
    """The folder to write, relative to the current directory; out/NAME when left out. Links are resolved."""
    layout: Literal["files"] = "files"
    """How the output is laid out: `files` is a Hugging Face imagefolder."""
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
    ]
    """What to draw: texts, or mappings with a prompt and settings of its own."""

    _places: dict[Location, str] = PrivateAttr(default_factory=dict)

    @field_validator("layout", mode="before")
    @classmethod
    def _only_files_yet(cls, layout: object) -> object:
        if layout == "webdataset":
            raise PydanticCustomError("layout", "is not there yet: use files")
        return layout

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
        return tuple(names)

    def to_json(self) -> dict[str, Any]:
        """A mapping of JSON values from which `from_json` makes an equal manifest; defaults written out."""
        mapping = self.model_dump(mode="json", exclude={"prompts"})
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
    problems = list(document.problems)
    raw = document.root.value
    manifest = None
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, document, Manifest)
    problems += problems_between_lines(raw, document, PromptLine.model_fields)
    if manifest is None or problems:
        raise ManifestError(report(str(path), problems))
    return _with_absolute_paths(manifest, path, document)


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


def _with_absolute_paths(manifest: Manifest, path: Path, document: Document) -> Manifest:
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
    if problems:
        raise ManifestError(report(str(path), problems))
    resolved = manifest.model_copy(update=update)
    resolved._places.update(places)
    return resolved
