"""Whether a model's class of pipelines takes what a manifest asks for, before anything is queued."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, Final

from jobs.adapters import NONE
from jobs.arguments import arguments_of
from jobs.bounds import LEAST_GUIDANCE, MOST_GUIDANCE
from jobs.errors import ManifestError
from jobs.models.models import ModelRef
from jobs.pipelines.pipeline_class import STABLE_DIFFUSION
from jobs.pipelines.pipeline_task import AskedForwards, meant, painting_class, settled, troubles, vain
from jobs.pipelines.pipeline_trouble import Trouble
from jobs.pipelines.pipelines import find_pipeline
from jobs.prompt_weights import weights_trouble
from jobs.request import IMAGE_SETTINGS, PICTURES
from jobs.wording import printable, shortened
from producer.manifest.adapter_files import AdapterFiles
from producer.manifest.embedding_files import EmbeddingFiles
from producer.manifest.jpeg_check import JpegCheck
from producer.manifest.lora_files import LoraFiles
from producer.manifest.lora_tags import LORA_TAG
from producer.manifest.manifest import Manifest
from producer.manifest.parts import PromptLine
from producer.manifest.problems import MAX_REPORTED
from producer.manifest.single_arguments import folded
from producer.manifest.template import rendered
from producer.manifest.vain_settings import LORA_FOLDER, vain_settings
from producer.manifest.written_files import WITH_FILES

_TOGETHER: Final = (
    ("height", "width", "num_inference_steps", "arguments"),
    ("num_inference_steps", "strength"),
    ("syntax", "long_prompts", "arguments"),
)
"""Settings of which one can be right or wrong by another."""


_UNSAID: Final = {name: IMAGE_SETTINGS[name].default for name in PICTURES}
"""What lines have of pictures and adapters where the manifest says nothing."""


@dataclass(frozen=True, slots=True)
class PipelineCheck:
    """Checks the settings of lines against a model's class."""

    model: ModelRef
    settings: Mapping[str, Any]
    """What a line gets that has nothing of its own; the model's defaults where the manifest is silent."""
    swept: Mapping[str, tuple[Any, ...]]
    adapters: AdapterFiles
    """The files of adapters that were asked for."""
    loras: LoraFiles
    """What finds and checks LoRAs."""
    embeddings: EmbeddingFiles
    """What finds and checks textual inversions."""
    unsized: frozenset[str]
    """Sides that neither the manifest gives nor the model's configurations."""
    jpeg: JpegCheck | None = None
    """What checks the texts of lines; None where pictures are no JPEGs."""
    templates: bool = False
    """Whether lines are templates: what is drawn from them has a syntax to be checked, not they."""

    @classmethod
    def of(cls, manifest: Manifest, model: ModelRef) -> PipelineCheck:
        """The check for the lines of a manifest."""
        swept = {
            # Which picture it is makes no difference here.
            name: values[:1] if name in PICTURES else values
            for name, values in manifest.sweep.swept().items()
            if name != "seed"
        }
        adapters = AdapterFiles(manifest.folder)
        adapters.paths.update(model.ip_adapter_file)
        open_sides = {"height", "width"} & (manifest.settings.left_open() - swept.keys())
        return cls(
            model,
            _UNSAID
            | manifest.settings.of_images(model.defaults)
            | {"controlnet": model.controlnet, "ip_adapter": model.ip_adapter},
            swept,
            adapters,
            LoraFiles.of(manifest, model, adapters),
            EmbeddingFiles(model, adapters),
            frozenset(open_sides if model.unsized else ()),
            JpegCheck.of(manifest, model),
            templates=manifest.syntax == "dynamic",
        )

    def troubles(self, own: Mapping[str, Any]) -> list[Trouble]:
        """What is wrong with the a line's settings, its `own` and all that is swept; each once."""
        of_files = [
            Trouble((name,), written, what)
            for name, files in (("loras", self.loras), ("textual_inversions", self.embeddings))
            for written in self._tried(name, own)
            if (what := files.trouble(written)) is not None
        ]
        pipeline = self.model.pipeline_class
        if of_files:
            return of_files
        if pipeline is None:
            chosen = next(self._combinations({**self.settings, **own}))
            return list(vain(None, chosen, own))
        unsized = sorted(self.unsized - own.keys())
        if unsized:
            what = (
                f"{self.model.label} names no size of its own that is at hand: give height and width, each a "
                f"multiple of {pipeline.multiple(self.model.folder)}"
            )
            return [Trouble((unsized[0],), None, what)]
        found: dict[str, Trouble] = {}
        for chosen in self._combinations({**self.settings, **own}):
            values = folded(chosen, chosen["arguments"])
            whole = values | settled(pipeline, values)
            for trouble in chain(vain(pipeline, values, own), troubles(pipeline, whole, self.model.folder)):
                found.setdefault(str(trouble), trouble)
        return list(found.values())

    def meant(self, own: Mapping[str, Any]) -> frozenset[str]:
        """As `jobs.pipelines.pipeline_task.meant`, of a line's own settings with those of all."""
        return meant(self.model.pipeline_class, next(self._combinations({**self.settings, **own})))

    def key(self, own: Mapping[str, Any]) -> tuple[Any, ...]:
        """Equal for lines whose `own` settings are right or wrong alike: not which pictures they name."""
        return tuple((name, None if name in PICTURES else value) for name, value in own.items())

    @property
    def least_guidance(self) -> float:
        """The least guidance_scale that the class takes; 0 where neither it nor the class is known."""
        found, told = self.model.pipeline_class, self.model.least_guidance
        if found is None and told is not None:
            return told
        return LEAST_GUIDANCE if found is None or found.guidance is None else found.least_guidance

    def unguided(self, own: Mapping[str, Any]) -> bool:
        """Whether a line's own guidance_scale switches guidance off, which a higher one would not."""
        if "guidance_scale" not in own:
            return False
        found = self.model.pipeline_class
        known = find_pipeline(STABLE_DIFFUSION) if found is None else found
        chosen = next(self._combinations({**self.settings, **own}))
        values = folded(chosen, chosen["arguments"])
        asked = AskedForwards(*(values[name] for name in AskedForwards._fields))
        kind = painting_class(known, asked)
        return not kind.guided(asked) and kind.guided(asked._replace(guidance_scale=MOST_GUIDANCE))

    def text_troubles(self, prompt: str, own: Mapping[str, Any]) -> list[Trouble]:
        """What of a line's texts, its prompt and `own`, cannot be rendered in their syntax; each once."""
        found: dict[str, Trouble] = {}
        for syntax in self._tried("syntax", own):
            if syntax == "plain":
                continue
            texts = [
                *self._prompt(prompt, syntax, own, found),
                *(("negative_prompt", one) for one in self._tried("negative_prompt", own)),
            ]
            for name, text in texts:
                what = weights_trouble(text, syntax)
                if what is not None:
                    found.setdefault(name + what, Trouble((name,), text, what))
        return list(found.values())

    def _prompt(
        self, prompt: str, syntax: str, own: Mapping[str, Any], found: dict[str, Trouble]
    ) -> Iterator[tuple[str, str]]:
        """The prompt as it is encoded; what is wrong with its `<lora:…>` is added to `found`."""
        if not self.loras.reads_tags(syntax):
            yield "prompt", prompt
            return
        try:
            for written in self._tried("loras", own):
                # What is wrong with the line's own list is told of that.
                sound = written if self.loras.trouble(written) is None else NONE
                text, listed = self.loras.untagged(prompt, sound)
                self.loras.request_text(listed)
            yield "prompt", text
        except ManifestError as error:
            found.setdefault(f"loras{error}", Trouble(("prompt",), prompt, str(error)))

    @property
    def only_plain(self) -> bool:
        """Whether the texts of every line that has no syntax of its own are read as they are."""
        return set(self._tried("syntax", {})) == {"plain"}

    def _tried(self, name: str, own: Mapping[str, Any]) -> tuple[Any, ...]:
        """What a line has of a setting: one value, or those that are swept."""
        swept = self.swept.get(name)
        return (own.get(name, self.settings[name]),) if swept is None else swept

    def _combinations(self, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The settings with every value of the sweep: together where one depends on another, else once."""
        first = {**values, **{name: tried[0] for name, tried in self.swept.items()}}
        for names in _TOGETHER:
            together = {name: tried for name, tried in self.swept.items() if name.partition(".")[0] in names}
            for chosen in product(*together.values()):
                yield {**first, **dict(zip(together, chosen, strict=True))}
        for name, tried in self.swept.items():
            if name.partition(".")[0] not in chain(*_TOGETHER):
                yield from ({**first, name: one} for one in tried[1:])


def check_pipeline(manifest: Manifest, model: ModelRef) -> None:
    """Raises ManifestError that names every place, up to 20, where the manifest gives what the model's class
    does not take. Rows of prompt files are checked where they are read, and texts of templates where they are
    drawn.

    Where the class is not known, a worker checks most of it.
    """
    check = PipelineCheck.of(manifest, model)
    found: dict[str, None] = {}
    lines: Iterator[tuple[int | None, Mapping[str, Any]]] = (
        (index, _own(line, manifest)) for index, line in enumerate(manifest.prompts)
    )
    everywhere: list[tuple[int | None, Mapping[str, Any]]] = [(None, {})] if manifest.prompts_from else []
    # A folder that no line needs is told, and no reason to refuse.
    used = {LORA_FOLDER}
    known: dict[tuple[Any, ...], list[Trouble]] = {}
    for index, own in chain(everywhere, lines):
        key = check.key(own)
        if known.get(key) != []:
            used |= check.meant(own)
            known[key] = check.troubles(own)
            if index is None:
                # Rows may give pictures, and each is checked where it is read.
                known[key] = [one for one in known[key] if one.path[0] not in PICTURES]
        texts = [] if check.templates else [""] if index is None else _texts(manifest.prompts[index])
        of_texts = chain.from_iterable(check.text_troubles(text, own) for text in texts)
        for trouble in chain(known[key], of_texts):
            found[_told(manifest, check, trouble, index)] = None
            if len(found) > MAX_REPORTED:
                raise ManifestError("\n".join([*list(found)[:MAX_REPORTED], "and more"]))
    # Prompt files may give pictures: what means nothing is told once all rows were read.
    for path, what in () if manifest.prompts_from else vain_settings(manifest, used):
        found[f"{manifest.place(*path)}: {what}"] = None
    if found:
        raise ManifestError("\n".join(found))


def _own(line: str | PromptLine, manifest: Manifest) -> Mapping[str, Any]:
    return {} if isinstance(line, str) else line.own_settings(manifest.settings)


def _texts(line: str | PromptLine) -> list[str]:
    """A prompt's text, and what its variables stand for."""
    if isinstance(line, str):
        return [line]
    if line.variables is None:
        return [line.prompt]
    values = list(chain.from_iterable(line.variables.values()))
    if any(LORA_TAG in text.lower() for text in (line.prompt, *values)):
        # A name may be put together of several.
        seed = 0 if line.sample_seed is None else line.sample_seed
        return [*rendered(line.prompt, line.variables, line.sample, seed), *values]
    return [line.prompt, *values]


def _told(manifest: Manifest, check: PipelineCheck, trouble: Trouble, index: int | None) -> str:
    """A trouble at its place: in the prompt of this index if it gives the setting, `sweep` or `settings`."""
    name, single = trouble.path[0], ".".join(trouble.path)
    in_line = None if index is None else _in_line(manifest.prompts[index], trouble)
    if name == "prompt" and index is not None:
        whole = isinstance(manifest.prompts[index], str)
        place = manifest.place("prompts", index) if whole else manifest.place("prompts", index, "prompt")
    elif in_line is not None:
        place = manifest.place("prompts", index or 0, *in_line)
    elif single in check.swept or name in check.swept:
        key, below = (single, ()) if single in check.swept else (name, trouble.path[1:])
        at = next((n for n, one in enumerate(check.swept[key]) if _says(one, trouble.value, below)), 0)
        place = manifest.place("sweep", key, at, *below)
    else:
        place = manifest.place("settings", *trouble.path)
    if (trouble.value is None and len(trouble.path) == 1) or name in (*WITH_FILES, *PICTURES):
        return f"{place}: {trouble.what}"
    return f"{place} = {shown_value(trouble.value)}: {trouble.what}"


def _in_line(line: str | PromptLine, trouble: Trouble) -> tuple[str, ...] | None:
    """Where a prompt gives what a trouble is about; None where it does not."""
    if isinstance(line, str):
        return None
    name, *below = trouble.path
    single = ".".join(trouble.path)
    if single in line.model_fields_set:
        return (single,)
    given = getattr(line, name, None)
    if given is None or (below and below[0] not in arguments_of(given)):
        return None
    return trouble.path


def _says(tried: Any, value: object, below: tuple[str, ...]) -> bool:
    """Whether one value of a sweep is what a trouble is about."""
    said = json.loads(tried).get(below[0], ...) if below else tried
    return type(said) is type(value) and bool(said == value)


def shown_value(value: Any) -> str:
    """A value as a manifest writes it, on one line."""
    if isinstance(value, str):
        return shortened(value) if value else '""'
    if isinstance(value, float):
        return f"{value:g}"
    return printable(shortened(json.dumps(value, ensure_ascii=False)))
