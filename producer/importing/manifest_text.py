"""A manifest's YAML from recipes: what all share in `settings`, the rest with each prompt, losses beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

import yaml

from jobs.errors import ManifestError
from jobs.model_files.safetensors_header import SUFFIX
from jobs.request import IMAGE_SETTINGS
from jobs.wording import counted, printable
from producer.importing.imported import STAND_IN, Imported
from producer.importing.recipe import Loss, NamedModel, Recipe
from producer.manifest.lora_tags import untagged
from producer.manifest.manifest import Manifest
from producer.manifest.yaml_marks import MAX_BYTES

_ENDS_OF_LINES: Final = "\r\x85\u2028\u2029"
"""YAML takes these for ends of lines too: only escaped they stay what they are."""
_TURNS: Final = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""They change the order in which a text is shown: only escaped, a reader sees what a picture brought."""
_ESCAPED: Final = {ord(one): f"\\u{ord(one):04x}" for one in _TURNS}
_COMMENT: Final = 100
_WIDTH: Final = 1 << 20
"""Of a line: one that is folded is hard to edit."""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if any(one in text for one in _ENDS_OF_LINES + _TURNS):
        style = '"'
    elif "\n" in text and "\t" not in text and not text.endswith("\n"):
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def manifest_text(imported: Imported, name: str) -> str:
    """The YAML text of a manifest that asks for every picture again.

    Raises ManifestError when `name` cannot be a job's, or the text is larger than a manifest may be.
    """
    Manifest.from_json({"name": name, "model": STAND_IN, "prompts": [""]})
    recipes = imported.recipes
    shared = _shared(recipes)
    losses = _shared_losses(recipes)
    lines = [f"# Written by `imagemill import` from {counted(len(recipes), 'picture')}."]
    for loss in losses:
        lines += _comment(f"Every picture: {loss}")
    lines += [_dumped({"name": name}), *_model_lines(imported.model)]
    lines += _lora_lines(recipes)
    if imported.of_job:
        lines.append(_dumped(imported.of_job))
    if shared:
        lines.append(_dumped({"settings": shared}))
    lines.append("prompts:")
    for recipe in recipes:
        lines.extend(_prompt_lines(recipe, shared, losses))
    text = "\n".join(lines) + "\n"
    if len(text.encode()) > MAX_BYTES:
        raise ManifestError(
            f"the manifest of {counted(len(recipes), 'picture')} is larger than {MAX_BYTES >> 20} MiB: import"
            " fewer at a time"
        )
    return text


def _model_lines(model: NamedModel) -> Iterator[str]:
    if model.model is None:
        yield from _comment(
            f"The pictures name a model, {model}, and not where it is: write its folder, its"
            f" .safetensors file or its Hugging Face id (org/name) here, or give --model. Until then"
            f" `{STAND_IN}` stands in, which paints blocks of colour."
        )
        yield _dumped({"model": STAND_IN})
        return
    if model.model.startswith("./") and model.revision is not None:
        yield "# A folder or file of this name with exactly these contents: write where it is."
    yield _dumped({"model": model.model})
    if model.revision is not None:
        yield _dumped({"revision": model.revision})


def _lora_lines(recipes: Sequence[Recipe]) -> Iterator[str]:
    """The folder of the LoRAs that prompts name, which no picture tells."""
    prompts = (recipe.prompt for recipe in recipes if recipe.settings.get("syntax") == "a1111")
    files = sorted({f"{tag.name}{SUFFIX}" for prompt in prompts for tag in untagged(prompt).tags})
    if files:
        yield from _comment(
            f"The prompts name LoRAs: put {', '.join(files)} into this folder, or write where they are."
        )
        yield _dumped({"lora_folder": "loras"})


def _shared(recipes: Sequence[Recipe]) -> dict[str, Any]:
    """The settings that all give with one value; each seed stays with its prompt, and latents as a prompt has
    them."""
    first, *others = recipes
    return {
        name: first.settings[name]
        for name in IMAGE_SETTINGS
        if name in first.settings
        and name not in ("seed", "init_latents")
        and all(name in one.settings and one.settings[name] == first.settings[name] for one in others)
    }


def _shared_losses(recipes: Sequence[Recipe]) -> list[Loss]:
    """Those of the programs, and those that each of several pictures has."""
    all_have = set(recipes[0].losses).intersection(*(one.losses for one in recipes[1:]))
    return list(
        dict.fromkeys(
            loss
            for one in recipes
            for loss in one.losses
            if loss.of_program or (loss in all_have and len(recipes) > 1)
        )
    )


def _prompt_lines(recipe: Recipe, shared: Mapping[str, Any], told: Iterable[Loss]) -> Iterator[str]:
    yield from _comment(f"{recipe.file} ({recipe.program})", "  ")
    for loss in recipe.losses:
        if loss not in told:
            yield from _comment(str(loss), "  ")
    own = {
        name: recipe.settings[name]
        for name in IMAGE_SETTINGS
        if name in recipe.settings and name not in shared
    }
    line: Any = {"prompt": recipe.prompt, **own} if own else recipe.prompt
    yield "  " + _dumped([line]).replace("\n", "\n  ").replace("\n  \n", "\n\n")


def _comment(text: str, indent: str = "") -> list[str]:
    """Lines of a comment; no character of a picture's ends one."""
    return wrap(
        printable(text), _COMMENT, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _dumped(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=False
    )
    # Every text that has one is in double quotes, where an escape is read.
    return text.translate(_ESCAPED).removesuffix("\n").removesuffix("\n...")
