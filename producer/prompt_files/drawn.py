"""Lines whose texts are templates: what is wrong with them, and the lines that are drawn from each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import ManifestError
from producer.manifest.document import Location
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.manifest.parts import DefaultSettings, PromptLine
from producer.manifest.problems import MAX_REPORTED
from producer.manifest.written import TEMPLATE_COLUMNS
from producer.wildcards.line_template import APART, has_syntax, line_template

if TYPE_CHECKING:
    from producer.wildcards.templates import Templates

_PROMPT, _NEGATIVE = TEMPLATE_COLUMNS


def templates_of(manifest: Manifest) -> Templates | None:
    """The templates of a manifest; None where its texts are words alone."""
    if manifest.syntax != "dynamic":
        return None
    from producer.wildcards.templates import Drawing, Templates

    folder = Path("wildcards" if manifest.wildcards is None else manifest.wildcards)
    sample_seed = 0 if manifest.sample_seed is None else manifest.sample_seed
    return Templates(Drawing(manifest.name, folder, manifest.sample, sample_seed))


def checked(line: Line, templates: Templates, defaults: DefaultSettings) -> Line | ManifestError:
    """The line, or why nothing can be drawn from it."""
    trouble = templates.trouble(line_template(line.prompt, _negative(line, defaults)))
    return line if trouble is None else ManifestError(trouble)


def drawn_lines(manifest: Manifest, lines: Iterator[Line], templates: Templates) -> Iterator[Line]:
    """What is drawn from each line: its settings, seeds, id and columns are those of every draw.

    Raises ManifestError for what is wrong with the texts of the manifest itself.
    """
    _refuse_wrong(manifest, templates)
    for line in lines:
        negative = _negative(line, manifest.settings)
        template = line_template(line.prompt, negative)
        if not has_syntax(template):
            yield line
            continue
        _, settings, images, seeds, id, columns, latents = line
        beside = {**columns, _PROMPT: line.prompt}
        if APART not in template:
            for prompt in templates.prompts(template):
                yield Line(prompt, settings, images, seeds, id, beside, latents)
            continue
        beside[_NEGATIVE] = negative
        for both in templates.prompts(template):
            prompt, _, drawn = both.partition(APART)
            own = {**settings, "negative_prompt": drawn}
            yield Line(prompt, own, images, seeds, id, beside, latents)


def _negative(line: Line, defaults: DefaultSettings) -> str:
    negative: str = line.settings.get("negative_prompt", getattr(defaults, "negative_prompt"))  # noqa: B009
    return negative


def _refuse_wrong(manifest: Manifest, templates: Templates) -> None:
    wrong: list[str] = []

    def try_one(text: str, *path: str | int) -> None:
        if (trouble := templates.trouble(text)) is not None:
            wrong.append(f"{manifest.place(*path)}: {trouble}")

    usual: str = getattr(manifest.settings, "negative_prompt")  # noqa: B009
    try_one(usual, "settings", "negative_prompt")
    for index, swept in enumerate(manifest.sweep.swept().get("negative_prompt", ())):
        if has_syntax(swept):
            place = manifest.place("sweep", "negative_prompt", index)
            wrong.append(f"{place}: nothing is drawn for a swept text: write it out")
    for index, line in enumerate(manifest.prompts):
        path: Location = ("prompts", index)
        own = None
        prompt = line if isinstance(line, str) else line.prompt
        if isinstance(line, PromptLine):
            path, own = (*path, "prompt"), getattr(line, "negative_prompt", None)
        try_one(line_template(prompt, usual if own is None else own), *path)
        if len(wrong) == MAX_REPORTED:
            break
    if wrong:
        raise ManifestError("\n".join(wrong))
