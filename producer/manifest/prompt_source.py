"""A file of prompts in a manifest, as a validated model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from jobs.columns import column_trouble
from producer.manifest.fields import PathText, Text
from producer.manifest.parts import ROW_FIELDS, first_twice
from producer.manifest.setting_fields import Strict
from producer.manifest.single_arguments import argument_named

_LATER_KEYS = ("ignore", "empty_prompt", "quoting", "separator", "encoding", "one_per_file")


def _new_names(columns: object) -> object:
    """A list of columns as a mapping of each to itself."""
    if not isinstance(columns, (list, tuple)):
        return columns
    wrong = next((name for name in columns if not isinstance(name, str)), None)
    if wrong is not None:
        what = f"holds {wrong}, and a name is text: write it in quotes"
        raise PydanticCustomError("names", "{what}", {"what": what})
    twice = first_twice(columns)
    if twice is not None:
        raise PydanticCustomError("names", "holds {name} twice: remove one", {"name": twice})
    return {name: name for name in columns}


KeptColumns = Annotated[
    dict[str, Text],
    BeforeValidator(_new_names),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "string"}},
            ]
        }
    ),
]
"""Columns of the metadata -> what a file calls them."""


class PromptSource(Strict):
    """Files of prompts."""

    file: PathText
    """A .jsonl, .json, .csv, .tsv, .txt or .parquet file, the first five packed as .gz or .zst too, or a
    pattern (*, ?, [a-z], **) of such, or a folder; relative to the manifest, or s3://BUCKET/…, gs://, az://."""
    fields: dict[str, Text] = Field(default_factory=dict)
    """What the file calls our fields, where it has other names: {prompt: caption, arguments.eta: eta}. A path
    leads into objects: {prompt: data.caption}."""
    columns: KeptColumns = Field(default_factory=dict)
    """Columns of the file that are kept in the metadata, as a list, or as a mapping that renames them:
    {photo_width: width}. A path leads into objects."""
    ignore: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Columns of the file that are left out, even if we have a setting of their name."""
    ignore_others: bool = False
    """true ignores columns that are neither a field nor kept; false reports them as a mistake."""
    empty_prompt: Literal["unconditional"] | None = None
    """unconditional takes a prompt that is empty, blank or null; it is a mistake when left out."""
    quoting: Literal["minimal", "none"] | None = None
    """Of a table: minimal takes double quotes around a cell as its bounds, none as characters. When left out,
    minimal, and a row that only none reads is refused."""
    separator: str | None = None
    """The character between a table's cells: a comma in .csv, a tab ("\\t") in .tsv when left out."""
    encoding: Text | None = None
    """The encoding of a text file, such as utf-16 or cp1252. When left out, as its byte order mark says, and
    UTF-8 without one."""
    one_per_file: bool = False
    """true takes each .txt file as one prompt, whose id is the file's name; `file` may be a folder then."""
    _written: str | None = PrivateAttr(None)

    @property
    def file_as_written(self) -> str:
        """`file` before it was made absolute."""
        return self.file if self._written is None else self._written

    def with_file(self, absolute: str) -> Self:
        """The entry with an absolute `file`, which still knows what was written."""
        found = self.model_copy(update={"file": absolute})
        found._written = self.file_as_written
        return found

    @field_validator("separator")
    @classmethod
    def _separator_is_a_character(cls, separator: str | None) -> str | None:
        if separator is not None and (len(separator) != 1 or separator in '\0\r\n"'):
            what = 'must be one character, as ";" or "\\t"'
            raise PydanticCustomError("separator", "{what}", {"what": what})
        return separator

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, name: str | None) -> str | None:
        try:
            "a".encode("utf-8" if name is None else name)
        except (LookupError, ValueError):
            what = "no such encoding: use one that Python knows, as utf-8, utf-16, cp1252, shift_jis, gb18030"
            raise PydanticCustomError("encoding", "{what}", {"what": what}) from None
        return name

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A manifest that was kept before these keys existed says the same as one that leaves them alone.
        dumped: dict[str, Any] = handler(self)
        if all(new == name for new, name in self.columns.items()):
            dumped["columns"] = list(self.columns)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dumped.items()
            if name not in _LATER_KEYS or getattr(self, name) != fields[name].default
        }

    @field_validator("fields")
    @classmethod
    def _fields_are_ours(cls, names: Mapping[str, str]) -> Mapping[str, str]:
        for field, name in names.items():
            if field not in ROW_FIELDS and argument_named(field) is None:
                known = f"{', '.join(ROW_FIELDS)} or arguments.NAME"
                what = f"no such field of a prompt in a file: use one of {known}"
                raise PydanticCustomError("column", "{what}", {"what": what, "below": field})
            if list(names.values()).count(name) > 1:
                what = f"{name} is named for two fields: remove one"
                raise PydanticCustomError("column", "{what}", {"what": what, "below": field})
        return names

    @field_validator("columns")
    @classmethod
    def _columns_fit_the_metadata(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        for name in columns:
            trouble = column_trouble(name, None)
            if trouble is None:
                continue
            if columns[name] == name:
                # A list says no other name.
                new = "row" if name == "" else f"{name}_column"
                trouble += (
                    f", as in {{{new}: {json.dumps(name, ensure_ascii=False) if name == '' else name}}}"
                )
            raise PydanticCustomError("names", "{what}", {"what": trouble})
        return columns

    @field_validator("ignore")
    @classmethod
    def _ignored_are_not_used(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        twice = first_twice(names)
        if twice is not None:
            raise PydanticCustomError("names", "holds {name} twice: remove one", {"name": twice})
        for key in ("fields", "columns"):
            used = next((name for name in names if name in info.data.get(key, {}).values()), None)
            if used is not None:
                what = f"{used} is in `{key}` too: remove one of them"
                raise PydanticCustomError("names", "{what}", {"what": what})
        return names
