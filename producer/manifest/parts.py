"""The parts of a manifest as validated models: settings, a prompt, a sweep."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from jobs.bounds import COUNTS, SEEDS, Values, Whole, WholeList
from jobs.bounds import Text as AnyText
from jobs.columns import MAX_DEPTH, column_trouble, deeper_than
from jobs.models.models import ModelDefaults
from jobs.request import IMAGE_SETTINGS, settings_in
from producer.manifest.fields import Count, LatentsFile, PathText, Seed, Text
from producer.manifest.setting_fields import PromptFields, SettingsFields, SweepFields
from producer.manifest.single_arguments import (
    SingleName,
    SingleValue,
    SweptValues,
    describe,
    folded,
)
from producer.manifest.template import template_trouble
from producer.manifest.written_files import WRITTEN
from producer.manifest.written_pictures import ANY_SUFFIX, escaped

_WRITTEN_OUT = ConfigDict(use_attribute_docstrings=True, defer_build=False)
"""Of models that stand here, unlike their bases."""


def _without_null(described: dict[str, Any]) -> None:
    """Describe a key as what may be left out but not null."""
    if {"type": "null"} in described.get("anyOf", ()):
        choices = [choice for choice in described["anyOf"] if choice != {"type": "null"}]
        del described["anyOf"]
        described.update(choices[0] if len(choices) == 1 else {"anyOf": choices})


def _open_without_null(schema: dict[str, Any]) -> None:
    """Describe the settings that a model has defaults for as what may be left out but not null."""
    for name in _BY_MODEL:
        schema["properties"][name].pop("default", None)
        _without_null(schema["properties"][name])


_BY_MODEL = tuple(name for name in settings_in("settings") if IMAGE_SETTINGS[name].by_model)
LINE_SETTINGS = tuple(name for name in settings_in("settings") if name != "seed")
"""An image's settings that a manifest may give for all its lines and a line for itself."""


class DefaultSettings(SettingsFields):
    """What every prompt gets that has no value of its own."""

    # A setting with a default of the model's own is None while it is left open.

    model_config = ConfigDict(**_WRITTEN_OUT, json_schema_extra=_open_without_null)

    seed: Seed | None = None
    """The seed of every prompt; null derives one for each picture from its settings."""
    images_per_prompt: Count = 1
    """Pictures of each prompt. With a seed they take seed, seed+1, …"""

    images_from: PathText | None = None
    """A folder that has a picture for each line, called as the line's `id`; the same as `image:
    FOLDER/{id}.*`."""

    @model_validator(mode="before")
    @classmethod
    def _images_from_is_a_pattern(cls, raw: Any) -> Any:
        folder = raw.get("images_from") if isinstance(raw, dict) else None
        if not isinstance(folder, str) or not folder:
            return raw
        if raw.get("image") is not None:
            what = "is in `image` too: remove one of them"
            raise PydanticCustomError("column", "{what}", {"what": what, "below": "images_from"})
        given = {name: value for name, value in raw.items() if name != "images_from"}
        return given | {"image": f"{escaped(folder.rstrip('/')) or '/'}/{{id}}{ANY_SUFFIX}"}

    @field_validator(*_BY_MODEL, mode="before")
    @classmethod
    def _leave_out_or_give(cls, value: object) -> object:
        if value is None:
            raise PydanticCustomError("null", "has no value: remove the key, and the model's default counts")
        return value

    @model_serializer(mode="wrap")
    def _without_open_ones(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        return {
            name: value
            for name, value in dumped.items()
            if (value is not None or name not in (*_BY_MODEL, "images_from"))
            # A manifest that was kept before a setting existed says the same as one that leaves it alone.
            and not (name in IMAGE_SETTINGS and IMAGE_SETTINGS[name].left_out(value))
        }

    def of_images(self, defaults: ModelDefaults) -> dict[str, Any]:
        """LINE_SETTINGS; those left open are the model's."""
        given = {name: getattr(self, name) for name in LINE_SETTINGS}
        return {
            name: getattr(defaults, name) if value is None and name in _BY_MODEL else value
            for name, value in given.items()
        }

    def left_open(self) -> set[str]:
        """The settings that are the model's."""
        return {name for name in _BY_MODEL if getattr(self, name) is None}

    def settled(self, defaults: ModelDefaults) -> DefaultSettings:
        """The same with nothing left open."""
        return self.model_copy(update=self.of_images(defaults))


def _leave_out_or_give(schema: dict[str, Any]) -> None:
    """Describe a key of a prompt as what may be left out but, `seed` aside, not null: its default is in
    `settings`."""
    for name, described in schema["properties"].items():
        described.pop("default", None)
        if name != "seed":
            _without_null(described)
    describe(schema)
    schema["allOf"] = [
        {"not": {"required": ["seeds", "seed"]}},
        {"not": {"required": ["seeds", "images_per_prompt"]}},
        {"if": {"required": ["sample"]}, "then": {"required": ["variables"]}},
        {"if": {"required": ["sample_seed"]}, "then": {"required": ["sample"]}},
    ]


def _leave_out(schema: dict[str, Any]) -> None:
    describe(schema)
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


Variable = Annotated[
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


class PromptLine(PromptFields):
    """One prompt with settings of its own; a key left out (None) is as in `settings`."""

    model_config = ConfigDict(**_WRITTEN_OUT, extra="allow", json_schema_extra=_leave_out_or_give)
    __pydantic_extra__: dict[SingleName, SingleValue] = Field(init=False)

    prompt: Text
    """The text to draw; "" is unconditional."""
    seed: Seed | None = None
    """The seed of the first picture; null derives one, even if `settings` has a seed."""
    images_per_prompt: Count | None = None
    """Pictures of this prompt. With a seed they take seed, seed+1, …"""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] | None = None
    """One picture for each of these seeds; excludes `seed` and `images_per_prompt`."""
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
    variables: dict[str, Variable] | None = None
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

    def own_settings(self, defaults: DefaultSettings) -> dict[str, Any]:
        """Those of LINE_SETTINGS that it gives; its single arguments join those of `defaults`."""
        given = {name: getattr(self, name) for name in LINE_SETTINGS}
        own = {name: value for name, value in given.items() if value is not None}
        return folded(own | self.__pydantic_extra__, defaults.arguments)

    @model_validator(mode="after")
    def _only_variables_are_sampled(self) -> Self:
        for key, needs in (("sample", "variables"), ("sample_seed", "sample")):
            if getattr(self, key) is not None and getattr(self, needs) is None:
                what = f"needs {needs}: add it, or remove this"
                raise PydanticCustomError("column", "{what}", {"what": what, "below": key})
        return self


ROW_VALUES: Mapping[str, Values] = {
    **{name: WRITTEN.get(name, IMAGE_SETTINGS[name].values) for name in settings_in("row")},
    "images_per_prompt": Whole(COUNTS),
    "seeds": WholeList(SEEDS),
    "id": AnyText(),
}
"""What a row of a prompt file may say, and the values of each."""
ROW_FIELDS = tuple(ROW_VALUES)


class Sweep(SweepFields):
    """The values that a sweep tries of each setting."""

    model_config = ConfigDict(**_WRITTEN_OUT, extra="allow", json_schema_extra=_leave_out)
    __pydantic_extra__: dict[SingleName, SweptValues] = Field(init=False)

    @field_validator("*")
    @classmethod
    def _each_once(cls, values: tuple[object, ...] | None) -> tuple[object, ...] | None:
        twice = first_twice(values or ())
        if twice is not None:
            raise PydanticCustomError("twice", "holds {value} twice: remove one", {"value": str(twice)})
        return values

    def swept(self) -> dict[str, tuple[Any, ...]]:
        """The settings that are swept, in the order of combinations -> the values to try.

        Single arguments come last, by name.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        given = {name: tried for name, tried in values.items() if tried is not None}
        return given | dict(sorted(self.__pydantic_extra__.items()))
