"""The YAML file that a person writes, as a validated model."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from jobs.bounds import ImageFormat, Precision
from jobs.output.stored_shard import LayoutName
from producer.manifest.fields import Count, ModelName, PathText, Quality, Retention, Revision, Seed, Text
from producer.manifest.parts import DefaultSettings, PromptLine, Sweep
from producer.manifest.prompt_source import PromptSource
from producer.manifest.setting_fields import Strict, as_listed
from producer.manifest.written_controlnet import ControlNets
from producer.manifest.written_ip_adapter import IpAdapter


def _text_or_mapping(value: object) -> str:
    return "mapping" if isinstance(value, (dict, PromptLine)) else "text"


def _number_or_auto(value: object) -> str:
    return "auto" if value == "auto" else "number"


def _as_sources(value: object) -> object:
    """A file's bare name as a source, one source as a list of one."""
    several = value if isinstance(value, (list, tuple)) else [value]
    return [{"file": one} if isinstance(one, str) else one for one in several]


TEMPLATE_COLUMNS = ("prompt_template", "negative_prompt_template")
"""What `syntax: dynamic` writes beside the texts that it drew."""
_WEIGHTS = ("a1111", "compel")
"""The values of `syntax` that are a setting of each image."""


def _weights_are_settings(raw: Any) -> Any:
    """`syntax: a1111` as `settings: {syntax: a1111}`, and of a list the rest."""
    words = raw.get("syntax") if isinstance(raw, dict) else None
    words = [words] if isinstance(words, str) else words
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        return raw
    rest = [word for word in words if word not in _WEIGHTS]
    weights = [word for word in words if word in _WEIGHTS]
    if len(rest) > 1 or len(weights) > 1 or (weights and rest == ["plain"]):
        what = "takes one of plain, dynamic, a1111 and compel, or [dynamic, a1111] or [dynamic, compel]"
        raise PydanticCustomError("column", "{what}", {"what": what, "below": "syntax"})
    written = {**raw, "syntax": rest[0] if rest else "plain"}
    if not weights:
        return written
    settings = raw.get("settings", {})
    if isinstance(settings, dict):
        if "syntax" in settings:
            what = "is in `settings` too: remove one of them"
            raise PydanticCustomError("column", "{what}", {"what": what, "below": "syntax"})
        written["settings"] = {**settings, "syntax": weights[0]}
    return written


_Written = str | PromptSource | Annotated[list[str | PromptSource], Field(min_length=1)]


def _one_or_both(schema: dict[str, Any]) -> None:
    """Describe what `syntax` takes of what is written."""
    words = ["plain", "dynamic", *_WEIGHTS]
    both = {"type": "string", "enum": ["dynamic", *_WEIGHTS]}
    several = {"type": "array", "items": both, "contains": {"const": "dynamic"}, "minItems": 2, "maxItems": 2}
    for key in ("enum", "type"):
        schema.pop(key, None)
    schema["anyOf"] = [{"type": "string", "enum": words}, several]


def _prompts_or_files(schema: dict[str, Any]) -> None:
    """A manifest names its prompts, or files of them, or both."""
    for name in ("controlnet", "prompts", "prompts_from", "sweep"):
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
    controlnet: ControlNets = ()
    """A ControlNet, or a list of them, by which the pictures of every `control_image` are painted."""
    ip_adapter: IpAdapter | None = None
    """The IP-Adapter by which images follow their `ip_adapter_image`: a file, or what diffusers'
    load_ip_adapter takes."""
    output: PathText | None = None
    """The folder to write, relative to the current directory, or a place in a bucket: s3://BUCKET/PREFIX, gs://,
    az:// (`layout: webdataset` only). out/NAME when left out. Links are resolved."""
    layout: LayoutName = "files"
    """How the output is laid out: `files` is a Hugging Face imagefolder, `webdataset` a tar and a parquet for
    each shard."""
    image_format: ImageFormat = as_listed("image_format")
    image_quality: Quality = as_listed("image_quality")
    precision: Precision = as_listed("precision")
    mode: Literal["exact", "fast"] = "exact"
    """exact gives each picture the same bytes, no matter what is rendered with it; fast gives that up to end
    the job sooner."""
    shard_size: Annotated[
        Annotated[int, Field(ge=1, le=10_000), Tag("number")] | Annotated[Literal["auto"], Tag("auto")],
        Discriminator(_number_or_auto),
    ] = 64
    """Pictures in one task, and in one folder or tar of the output. A folder gets 9,999 at most. auto: 1,000,
    or fewer where these would be more than 300 MB."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """0 is soonest, 9 last."""
    settings: DefaultSettings = DefaultSettings()
    """The settings of every prompt that has none of its own."""
    max_failures: Annotated[int, Field(ge=1)] | None = None
    """The job stops after this many failed pictures; null never stops it."""
    retention: Retention = 7 * 86400
    """How long Redis keeps a finished job: "7d", "12h" or seconds. The output stays."""
    syntax: Annotated[
        Literal["plain", "dynamic"],
        Field(json_schema_extra=_one_or_both),
    ] = "plain"
    """What texts mean: plain is words alone; dynamic draws from {a|b} and __wildcards__; a1111 and compel are
    `settings.syntax` of every prompt. Two of them in a list: [dynamic, a1111]."""
    wildcards: PathText | None = None
    """The folder with the files of __wildcards__, relative to the manifest; `wildcards` when left out."""
    inputs: Literal["copy", "reference"] = "copy"
    """copy keeps the pictures and adapters that lines name in the output, by their hash; reference leaves
    them where they are, where every worker must be able to read them."""
    lora_folder: PathText | None = None
    """The folder, and those below it, in which LoRAs are looked for by name: those of `<lora:name:0.8>` in
    prompts under `syntax: a1111`, and those of `loras: [name:0.8]`; relative to the manifest."""
    sample: Count | None = None
    """So many draws of each prompt with alternatives or wildcards; all combinations when left out."""
    sample_seed: Seed | None = None
    """Decides what `sample` draws; 0 when left out."""
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

    @property
    def read_syntax(self) -> tuple[str, ...]:
        """What of other tools' syntax is read in its texts."""
        return (self.syntax, getattr(self.settings, "syntax", "plain"))

    @model_validator(mode="before")
    @classmethod
    def _weights_are_settings(cls, raw: Any) -> Any:
        return _weights_are_settings(raw)

    @model_validator(mode="after")
    def _only_templates_are_drawn(self) -> Self:
        if self.syntax == "dynamic":
            for name in TEMPLATE_COLUMNS:
                if any(name in source.columns for source in self.prompts_from):
                    what = f"keeps a column {name}, which `syntax: dynamic` writes: rename the file's"
                    raise PydanticCustomError("column", "{what}", {"what": what, "below": "prompts_from"})
            return self
        for key in ("wildcards", "sample", "sample_seed"):
            if getattr(self, key) is not None:
                what = "needs `syntax: dynamic`: add it, or remove this"
                raise PydanticCustomError("column", "{what}", {"what": what, "below": key})
        return self

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if not self.prompts and not self.prompts_from:
            what = "is missing: add it, or prompts_from"
            raise PydanticCustomError("column", "{what}", {"what": what, "below": "prompts"})
        return self
