"""Write the tables of docs/manifest.md, docs/commands.md and docs/monitor.md: `python tools/reference.py`.

The pages are written by hand, except between a mark `<!-- python tools/reference.py: NAME -->` and the
next `<!-- end -->`. That text follows from the product: the manifest's JSON schema, the samplers, the
commands and the environment. Run it again when one of these has changed: tests/tools/test_reference.py
compares.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any, Final

import click

from jobs.pipelines.pipeline_class import NOT_AT_HAND, PipelineClass
from jobs.pipelines.pipelines import admitted, find_painting, find_pipeline
from jobs.schedulers import FLOW_SCHEDULERS, SCHEDULERS
from jobs.settings import Settings, variable_of
from producer.cli import command as imagemill
from producer.manifest.manifest import json_schema
from producer.metrics.families import FAMILIES
from worker.cli import command as imagemill_worker

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PAGES: Final = ("manifest.md", "commands.md", "monitor.md")

_SECTION = re.compile(r"(<!-- python tools/reference\.py: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SIZES: Final = {1 << 30: "GiB", 1 << 20: "MiB", 1 << 10: "KiB"}
_DEEP: Final = ("settings", "sweep", "prompts", "prompts_from", "controlnet", "ip_adapter")
"""Keys of a manifest that have a heading of their own."""


def filled(page: str) -> str:
    """The page with the text between its marks made again. KeyError for a mark of another name."""
    return _SECTION.sub(lambda mark: f"{mark[1]}{_SECTIONS[mark[2]]()}\n{mark[3]}", page)


def main() -> None:
    """Fill the pages in."""
    for name in PAGES:
        page = DOCS / name
        page.write_text(filled(page.read_text("utf-8")), "utf-8")


def _manifest() -> str:
    schema = json_schema()
    return _keys(schema, schema, schema["properties"])


def _settings() -> str:
    schema = json_schema()
    part = _part(schema, "settings")
    return _keys(schema, part, part["properties"])


def _prompt() -> str:
    """What a prompt has beyond the settings."""
    schema = json_schema()
    part, settings = _part(schema, "prompts"), _part(schema, "settings")["properties"]
    return _keys(schema, part, {k: v for k, v in part["properties"].items() if k not in settings})


def _swept() -> str:
    return ", ".join(f"`{name}`" for name in _part(json_schema(), "sweep")["properties"])


def _source() -> str:
    schema = json_schema()
    part = _part(schema, "prompts_from")
    return _keys(schema, part, part["properties"])


def _schedulers() -> str:
    return _table(
        ("name", "other names", "diffusers"),
        (
            (
                f"`{one.name}`",
                ", ".join(f"`{alias}`" for alias in one.aliases),
                f"`{one.class_name}`" + "".join(f", `{key}={value!r}`" for key, value in one.options.items()),
            )
            for one in (*SCHEDULERS, *FLOW_SCHEDULERS)
        ),
    )


def _pipelines() -> str:
    """Every class that is rendered: what a manifest gets that leaves settings open, and which samplers."""
    return _table(
        ("class", "height x width", "steps", "guidance", "samplers", "arguments"),
        (
            (
                f"`{name}`",
                _own_size(pipeline),
                f"{pipeline.num_inference_steps}",
                "none" if pipeline.guidance is None else _own_guidance(pipeline),
                _samplers(pipeline),
                ", ".join(f"`{argument}`" for argument in pipeline.arguments),
            )
            for name, pipeline in ((name, find_pipeline(name)) for name in admitted())
        ),
    )


def _tasks() -> str:
    """From which pictures the classes paint, by which class of diffusers, with what further arguments."""
    rows = []
    for name in admitted():
        pipeline = find_pipeline(name)
        for key in filter(None, pipeline.tasks):
            painting = find_painting(pipeline.tasks[key])
            strength = "" if painting.strength is None else f"{painting.strength.default:g}"
            further = [one for one in painting.arguments if one not in pipeline.arguments]
            rows.append(
                (
                    f"`{name}`",
                    ", ".join(f"`{picture}`" for picture in key.split("+")),
                    "itself" if painting.name == name else f"`{painting.name}`",
                    f"{', '.join(f'`{one}`' for one in painting.controlnets)}",
                    strength,
                    ", ".join(f"`{one}`" for one in further),
                )
            )
    return _table(("class", "pictures", "painted by", "ControlNet", "strength", "more arguments"), rows)


def _controlnet() -> str:
    schema = json_schema()
    part = _part(schema, "controlnet")
    return _keys(schema, part, part["properties"])


def _ip_adapter() -> str:
    schema = json_schema()
    part = _part(schema, "ip_adapter")
    return _keys(schema, part, part["properties"])


def _own_size(pipeline: PipelineClass) -> str:
    """The usual size, and what a size must be a multiple of."""
    default, usual = pipeline.size["default"], pipeline.size["scale"]["usual"]
    if "pixels" in default:
        height, width = default["pixels"]
    else:
        height = width = default["latents"] * usual if "latents" in default else default.get("else", 0)
        if "config" in default:
            height = width = height * usual
    own = f"{height}x{width}" if height else "the model's"
    return f"{own}; multiples of {pipeline.multiple(NOT_AT_HAND)}"


def _own_guidance(pipeline: PipelineClass) -> str:
    """The default, and the argument that it is where that has another name."""
    named = "" if pipeline.guidance == "guidance_scale" else f" (`{pipeline.guidance}`)"
    return f"{pipeline.guidance_scale:g}{named}"


def _samplers(pipeline: PipelineClass) -> str:
    """The names that it takes, shortly."""
    if {one.name for one in SCHEDULERS} <= {*pipeline.schedulers}:
        return (
            "all but the flow ones"
            if "default" not in pipeline.schedulers
            else "`default`, all but the flow ones"
        )
    return ", ".join(f"`{name}`" for name in pipeline.schedulers)


def _environment() -> str:
    schema, meanings = Settings.model_json_schema(), _meanings_of_settings()
    return _table(
        ("variable", "takes", "default", "meaning"),
        (
            (
                f"`{variable_of(name)}`",
                *_in_environment(schema, about),
                _meaning({"description": meanings[name]}),
            )
            for name, about in schema["properties"].items()
        ),
    )


def _meanings_of_settings() -> dict[str, str]:
    """What stands under each setting in its source, where pydantic would look at every start of a process."""
    (settings,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(settings, ast.ClassDef)
    return {
        field.target.id: meaning.value.value
        for field, meaning in pairwise(settings.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(meaning, ast.Expr)
        and isinstance(meaning.value, ast.Constant)
        and isinstance(meaning.value.value, str)
    }


def _in_environment(schema: Mapping[str, Any], about: Mapping[str, Any]) -> tuple[str, str]:
    """What a variable takes, and its default."""
    match about.get("type"):
        case "boolean":
            return "`0`, `1`", f"`{about['default']:d}`"
        case "array":
            return "names, separated by commas", ""
    return _takes(schema, about), _default(about)


def _part(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping that a key of the manifest takes, or takes a list of."""
    (name,) = {reference.rpartition("/")[2] for reference in _references(schema["properties"][key])}
    part: dict[str, Any] = schema["$defs"][name]
    return part


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for below in value.values():
            yield from _references(below)
    elif isinstance(value, list):
        for below in value:
            yield from _references(below)


def _keys(schema: Mapping[str, Any], part: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    rows = []
    for name, about in properties.items():
        deep = name in _DEEP and part is schema
        takes = f"see [below](#{name.replace(' ', '-')})" if deep else _takes(schema, about)
        default = "required" if name in part.get("required", ()) else "" if deep else _default(about)
        rows.append((f"`{name}`", takes, default, _meaning(about)))
    return _table(("key", "takes", "default", "meaning"), rows)


def _takes(schema: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The values that a JSON schema lets through, in words."""
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        # A long list has a table of its own.
        return ", ".join(f"`{value}`" for value in about["enum"]) if len(about["enum"]) < 10 else "a name"
    choices = about.get("anyOf", about.get("oneOf"))
    if choices is not None:
        # null means the same as leaving the key out.
        said = dict.fromkeys(_takes(schema, choice) for choice in choices if choice != {"type": "null"})
        if "a name" in said:
            return "a name"
        return " or ".join(said)
    match "object" if "$ref" in about else about.get("type"):
        case "integer" | "number" as kind:
            return _numbers("whole number" if kind == "integer" else "number", about)
        case "boolean":
            return "`true`, `false`"
        case "array":
            return "list of " + re.sub(r"\b(number|text)\b", r"\1s", _takes(schema, about["items"]))
        case "object":
            return "mapping"
        case "string":
            return "text"
    return "any JSON value"


def _numbers(kind: str, about: Mapping[str, Any]) -> str:
    least, most = about.get("minimum"), about.get("maximum")
    step = f", a multiple of {about['multipleOf']}" if "multipleOf" in about else ""
    if least is None:
        return kind + step
    return (
        f"{kind}, {_number(least)} to {_number(most)}{step}"
        if most is not None
        else f"{kind}, at least {least:g}"
    )


def _number(value: float) -> str:
    if value == 2**63 - 1:
        return "2^63-1"
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _default(about: Mapping[str, Any]) -> str:
    value = about.get("default")
    match value:
        case None | [] | {}:
            return ""
        case "":
            return '`""`'
        case bool():
            return f"`{str(value).lower()}`"
        case int() if "[smhdw]" in str(about):
            return f"`{value // 86400}d`"
        case int() if value in _SIZES:
            return f"`1{_SIZES[value]}`"
        case int() | float():
            return f"`{value:g}`"
    return f"`{value}`"


def _meaning(about: Mapping[str, Any]) -> str:
    return " ".join(about.get("description", "").split())


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _metrics() -> str:
    return _table(
        ("metric", "kind", "labels", "meaning"),
        (
            (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.meaning)
            for one in FAMILIES
        ),
    )


def _group(name: str, group: click.Group) -> Callable[[], str]:
    def section() -> str:
        paragraphs = [*_command(name, group)]
        for each, command in group.commands.items():
            paragraphs += [f"### {name} {each}", *_command(f"{name} {each}", command)]
        return "\n\n".join(paragraphs)

    return section


def _command(name: str, command: click.Command) -> Iterator[str]:
    """The usage line, the help text and the options of one command."""
    context = click.Context(command, info_name=name)
    yield f"`{' '.join([name, *command.collect_usage_pieces(context)])}`"
    for paragraph in (command.help or "").split("\n\n"):
        yield fill(" ".join(paragraph.split()), 116, break_long_words=False, break_on_hyphens=False)
    options = [one.get_help_record(context) for one in command.params if isinstance(one, click.Option)]
    rows = [(f"`{one[0]}`", _in_words(one[1])) for one in options if one is not None]
    if rows:
        yield _table(("option", "meaning"), rows)


def _in_words(meaning: str) -> str:
    """An option's help with click's brackets in words: `[x>=1]`, `[2<=x<=64]`, `[default: all]`."""
    meaning = re.sub(r" *\[x>=(\d+)\]", r" At least \1.", meaning)
    meaning = re.sub(r" *\[(\d+)<=x<=(\d+)\]", r" From \1 to \2.", meaning)
    return re.sub(r" *\[(default|required)(.*)\]", lambda said: f" {said[1].capitalize()}{said[2]}.", meaning)


_SECTIONS: Final[Mapping[str, Callable[[], str]]] = {
    "manifest": _manifest,
    "settings": _settings,
    "prompt": _prompt,
    "sweep": _swept,
    "prompts-from": _source,
    "schedulers": _schedulers,
    "pipelines": _pipelines,
    "tasks": _tasks,
    "controlnet": _controlnet,
    "ip-adapter": _ip_adapter,
    "imagemill": _group("imagemill", imagemill),
    "imagemill-worker": _group("imagemill-worker", imagemill_worker),
    "environment": _environment,
    "metrics": _metrics,
}

if __name__ == "__main__":
    main()
