"""The YAML file that a person writes, as a validated model."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from jobs.bounds import ImageFormat, Precision
from jobs.output.stored_shard import LayoutName
from producer.manifest.fields import ModelName, PathText, Quality, Retention, Revision, Text
from producer.manifest.parts import DefaultSettings, PromptLine, PromptSource, Strict, Sweep, as_listed


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


class WrittenManifest(Strict):
    """A job as it was written; paths are relative, and `output` may be left out."""

    model_config = ConfigDict(json_schema_extra=_prompts_or_files)

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9_-])?$")]
    """The job's name: lower-case letters, digits, ".", "_" and "-"; jobs are called NAME-1, NAME-2, …"""
    model: ModelName
    """A built-in model, a Hugging Face id, a pipeline folder (begins with ./ ../ ~ or /), or a single-file
    checkpoint (ends in .safetensors)."""
    revision: Revision | None = None
    """The model's commit, branch or tag, or the sha256:… of a folder or a single file."""
    output: PathText | None = None
    """The folder to write, relative to the current directory; out/NAME when left out. Links are resolved."""
    layout: LayoutName = "files"
    """How the output is laid out: `files` is a Hugging Face imagefolder, `webdataset` a tar and a parquet for
    each shard."""
    image_format: ImageFormat = as_listed("image_format")
    image_quality: Quality = as_listed("image_quality")
    precision: Precision = as_listed("precision")
    mode: Literal["exact", "fast"] = "exact"
    """exact gives each picture the same bytes, no matter what is rendered with it; fast gives that up to end
    the job sooner."""
    shard_size: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Pictures in one task, and in one folder or tar of the output. A folder gets 9,999 at most."""
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

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if not self.prompts and not self.prompts_from:
            what = "is missing: add it, or prompts_from"
            raise PydanticCustomError("column", "{what}", {"what": what, "below": "prompts"})
        return self
