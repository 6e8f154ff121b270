"""The texts for pictures that stand in a manifest itself, and what in them looks like other syntax."""

from __future__ import annotations

from collections.abc import Iterator

from producer.manifest.document import Location
from producer.manifest.parts import PromptLine
from producer.manifest.syntax_marks import marked
from producer.manifest.written import WrittenManifest


def prompt_texts(manifest: WrittenManifest) -> Iterator[tuple[Location, str]]:
    """Every prompt, negative prompt and value of a variable, and where it stands."""
    yield ("settings", "negative_prompt"), str(getattr(manifest.settings, "negative_prompt"))  # noqa: B009
    for index, value in enumerate(manifest.sweep.swept().get("negative_prompt", ())):
        yield ("sweep", "negative_prompt", index), value
    for index, line in enumerate(manifest.prompts):
        if not isinstance(line, PromptLine):
            yield ("prompts", index), line
            continue
        yield ("prompts", index, "prompt"), line.prompt
        negative = getattr(line, "negative_prompt", None)
        if negative is not None:
            yield ("prompts", index, "negative_prompt"), negative
        for name, values in ({} if line.variables is None else line.variables).items():
            for value in values:
                yield ("prompts", index, "variables", name), value


def first_marked(manifest: WrittenManifest) -> dict[int, tuple[int, Location]]:
    """For each kind of mark, by its place in MARKS, how many texts have one, and where the first is."""
    places, texts = zip(*prompt_texts(manifest), strict=True)
    return {kind: (count, places[first]) for kind, (count, first) in marked(texts).items()}
