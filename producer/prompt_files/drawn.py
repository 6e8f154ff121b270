"""Lines whose texts are templates: what is wrong with them, and the lines that are drawn from each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import ManifestError
from producer.manifest.document import Location
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.manifest.parts import DefaultSettings, PromptLine
from producer.manifest.pipeline_check import PipelineCheck, shown_value
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


@dataclass(frozen=True, slots=True)
class Drawing:
    """What draws, and what checks the texts that are drawn."""

    templates: Templates
    check: PipelineCheck | None

    def trouble(self, line: Line, template: str) -> str | None:
        """What of a line's texts cannot be rendered, `NAME drawn as TEXT: what`; None where all of it can."""
        if self.check is None:
            return None
        if "syntax" in line.settings or not self.check.only_plain:
            for trouble in self.check.text_troubles(line.prompt, line.settings):
                drawn = " drawn as" if has_syntax(template) else " ="
                return f"{trouble.path[0]}{drawn} {shown_value(trouble.value)}: {trouble.what}"
        return None if self.check.jpeg is None else self.check.jpeg.trouble(line)


def drawn_lines(
    manifest: Manifest, lines: Iterator[Line], drawing: Drawing, place_of_row: Callable[[], str]
) -> Iterator[Line]:
    """What is drawn from each line: its settings, seeds, id and columns are those of every draw.

    `lines` begins with those of the manifest; `place_of_row` tells the place of the line that it gave last
    where that is a row's. Raises ManifestError for what is wrong with the texts of the manifest itself, and
    for the first lines from which a text is drawn that cannot be rendered, whatever `on_bad_row` says: what
    is wrong is not the row.
    """
    _refuse_wrong(manifest, drawing.templates)
    wrong: list[str] = []
    for index, line in enumerate(lines):
        template = line_template(line.prompt, _negative(line, manifest.settings))
        for drawn in _draws(line, template, manifest.settings, drawing.templates):
            if (trouble := drawing.trouble(drawn, template)) is not None:
                own = index < len(manifest.prompts)
                wrong.append(f"{manifest.place('prompts', index) if own else place_of_row()}: {trouble}")
                break
            # After the first that is wrong, the others are only checked.
            if not wrong:
                yield drawn
        if len(wrong) == MAX_REPORTED:
            break
    if wrong:
        raise ManifestError("\n".join(wrong))


def _draws(line: Line, template: str, defaults: DefaultSettings, templates: Templates) -> Iterator[Line]:
    """The lines that are drawn from one."""
    if not has_syntax(template):
        yield line
        return
    _, settings, images, seeds, id, columns, latents = line
    beside = {**columns, _PROMPT: line.prompt}
    if APART not in template:
        for prompt in templates.prompts(template):
            yield Line(prompt, settings, images, seeds, id, beside, latents)
        return
    beside[_NEGATIVE] = _negative(line, defaults)
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
