"""The parts of a manifest as validated models: settings, a prompt, a sweep, a file of prompts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from jobs.columns import MAX_DEPTH, column_trouble, deeper_than
from producer.manifest.fields import (
    Count,
    Guidance,
    LatentsFile,
    PathText,
    SchedulerName,
    Seed,
    Side,
    Steps,
    Text,
)
from producer.manifest.template import template_trouble


class Strict(BaseModel):
    """A part that refuses unknown keys and converts nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class DefaultSettings(Strict):
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


def _without_null(described: dict[str, Any]) -> None:
    """Describe a key as what may be left out but not null."""
    if {"type": "null"} in described.get("anyOf", ()):
        choices = [choice for choice in described["anyOf"] if choice != {"type": "null"}]
        del described["anyOf"]
        described.update(choices[0] if len(choices) == 1 else {"anyOf": choices})


def _leave_out_or_give(schema: dict[str, Any]) -> None:
    """Describe a key of a prompt as what may be left out but, `seed` aside, not null: its default is in
    `settings`."""
    for name, described in schema["properties"].items():
        described.pop("default", None)
        if name != "seed":
            _without_null(described)
    schema["allOf"] = [
        {"not": {"required": ["seeds", "seed"]}},
        {"not": {"required": ["seeds", "images_per_prompt"]}},
        {"if": {"required": ["sample"]}, "then": {"required": ["variables"]}},
        {"if": {"required": ["sample_seed"]}, "then": {"required": ["sample"]}},
    ]


def _leave_out(schema: dict[str, Any]) -> None:
    for described in schema["properties"].values():
        described.pop("default", None)
        _without_null(described)


def first_twice(values: Iterable[Hashable]) -> Hashable | None:
    """The first value that one before it equals; None when all differ."""
    seen = set[Hashable]()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


Values = Annotated[
    tuple[Text, ...],
    Field(min_length=1, strict=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "minItems": 1, "items": {"type": "string"}},
                {"type": "string", "minLength": 1},
            ]
        }
    ),
]
"""What a variable stands for. A file's name is replaced by its lines before this is asked."""


class PromptLine(Strict):
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
    sample: Count | None = None
    """So many of the combinations of `variables`, drawn at random; all when left out."""
    sample_seed: Seed | None = None
    """Decides which combinations `sample` draws; 0 when left out."""
    variables: dict[str, Values] | None = None
    """What {name} in the prompt stands for: a list of texts, or a file with one a line, relative to the
    manifest. Every combination is a prompt; {{ and }} are braces."""

    @field_validator("seeds")
    @classmethod
    def _seeds_stand_alone(cls, seeds: object, info: ValidationInfo) -> object:
        for other in ("seed", "images_per_prompt"):
            if seeds is not None and info.data.get(other) is not None:
                raise PydanticCustomError(
                    "conflict", "excludes {other}: remove one of them", {"other": other}
                )
        return seeds

    @field_validator("columns", mode="before")
    @classmethod
    def _columns_are_shallow(cls, columns: object) -> object:
        for name, value in columns.items() if isinstance(columns, dict) else ():
            if deeper_than(MAX_DEPTH, value):
                what = f"is nested deeper than {MAX_DEPTH}: flatten it, or write it as text"
                raise PydanticCustomError("column", "{what}", {"what": what, "below": name})
        return columns

    @field_validator("columns")
    @classmethod
    def _columns_fit_the_metadata(cls, columns: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        for name, value in (columns or {}).items():
            trouble = column_trouble(name, value)
            if trouble is not None:
                raise PydanticCustomError("column", "{what}", {"what": trouble, "below": name})
        return columns

    @field_validator("variables")
    @classmethod
    def _variables_fit_the_prompt(
        cls, variables: dict[str, tuple[str, ...]] | None, info: ValidationInfo
    ) -> dict[str, tuple[str, ...]] | None:
        if variables is not None and "prompt" in info.data:
            trouble = template_trouble(info.data["prompt"], variables, info.data.get("sample"))
            if trouble is not None:
                raise PydanticCustomError("template", "{what}", {"what": trouble.what, "at": trouble.at})
        return variables

    @model_validator(mode="after")
    def _only_variables_are_sampled(self) -> Self:
        for key, needs in (("sample", "variables"), ("sample_seed", "sample")):
            if getattr(self, key) is not None and getattr(self, needs) is None:
                what = f"has no {needs} beside it: add it, or remove this"
                raise PydanticCustomError("column", "{what}", {"what": what, "below": key})
        return self


ROW_FIELDS = tuple(
    name
    for name in PromptLine.model_fields
    if name not in ("columns", "init_latents", "sample", "sample_seed", "variables")
)
"""What a row of a prompt file may say."""


class Sweep(Strict):
    """The values that a sweep tries of each setting."""

    model_config = ConfigDict(json_schema_extra=_leave_out)

    negative_prompt: Annotated[tuple[Text, ...], Field(min_length=1, strict=False)] | None = None
    """Negative prompts."""
    height: Annotated[tuple[Side, ...], Field(min_length=1, strict=False)] | None = None
    """Heights in pixels."""
    width: Annotated[tuple[Side, ...], Field(min_length=1, strict=False)] | None = None
    """Widths in pixels."""
    num_inference_steps: Annotated[tuple[Steps, ...], Field(min_length=1, strict=False)] | None = None
    """Numbers of denoising steps."""
    guidance_scale: Annotated[tuple[Guidance, ...], Field(min_length=1, strict=False)] | None = None
    """Guidance scales."""
    scheduler: Annotated[tuple[SchedulerName, ...], Field(min_length=1, strict=False)] | None = None
    """Samplers."""
    seed: Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] | None = None
    """First seeds: with `images_per_prompt` each is counted up from."""

    @field_validator("*")
    @classmethod
    def _each_once(cls, values: tuple[object, ...] | None) -> tuple[object, ...] | None:
        twice = first_twice(values or ())
        if twice is not None:
            raise PydanticCustomError("twice", "holds {value} twice: remove one", {"value": str(twice)})
        return values


class PromptSource(Strict):
    """Files of prompts."""

    file: PathText
    """A .jsonl, .csv, .tsv, .txt or .parquet file, or a pattern (*, ?, [a-z], **) of such, relative to the
    manifest."""
    fields: dict[str, Text] = Field(default_factory=dict)
    """What the file calls our fields, where it has other names: {prompt: caption, id: key}."""
    columns: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Columns of the file that are kept in the metadata."""
    ignore_others: bool = False
    """true leaves aside columns that are neither a field nor kept; false calls them a mistake."""

    @field_validator("fields")
    @classmethod
    def _fields_are_ours(cls, names: Mapping[str, str]) -> Mapping[str, str]:
        for field, name in names.items():
            if field not in ROW_FIELDS:
                what = f"no such field of a prompt in a file: use one of {', '.join(ROW_FIELDS)}"
                raise PydanticCustomError("column", "{what}", {"what": what, "below": field})
            if list(names.values()).count(name) > 1:
                what = f"{name} is named for two fields: remove one"
                raise PydanticCustomError("column", "{what}", {"what": what, "below": field})
        return names

    @field_validator("columns")
    @classmethod
    def _columns_fit_the_metadata(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        for name in columns:
            trouble = column_trouble(name, None)
            if trouble is not None:
                raise PydanticCustomError("names", "{what}", {"what": trouble})
        twice = first_twice(columns)
        if twice is not None:
            raise PydanticCustomError("names", "holds {name} twice: remove one", {"name": twice})
        return columns
