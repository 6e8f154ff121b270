"""How a picture was made, as far as its file tells, in the words of a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.bounds import plain_text
from jobs.errors import ManifestError
from jobs.request import IMAGE_SETTINGS
from jobs.wording import shortened
from producer.importing.samplers import find_sampler

NO_EQUAL: Final = "imagemill has no such setting, and the picture will differ"
_LEFT_OPEN: Final = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "scheduler": "sampler",
    "seed": "seed",
    "height": "size",
}
"""What every picture should say, and its word."""


class Untold(Exception):
    """A file does not say how its picture was made, or not in a way that is read here; the message is why."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that a file says of its picture, and a manifest cannot."""

    what: str
    remedy: str
    of_program: bool = False
    """Whether it is true of every picture of the program, and need not be told for each."""

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class NamedModel:
    """The model that a file names."""

    name: str = ""
    hash: str = ""
    model: str | None = None
    """What a manifest may name in its place; None where the file tells neither a path nor a hub id."""
    revision: str | None = None

    def __str__(self) -> str:
        name, digits = shortened(self.name, 100), shortened(self.hash)
        if not name:
            return f"with hash {digits}" if digits else "without a name"
        return f"{name} (hash {digits})" if digits else name


@dataclass(frozen=True, slots=True)
class Recipe:
    """One picture: its prompt, and every setting that its file tells."""

    file: str
    program: str
    prompt: str
    settings: Mapping[str, Any]
    """Settings of a prompt in a manifest, by name."""
    of_job: Mapping[str, Any]
    """Settings that only a whole manifest has: `precision`, `image_format`, `image_quality`."""
    model: NamedModel
    losses: tuple[Loss, ...]


@dataclass(slots=True)
class Draft:
    """Gathers what one program's text says; values that no request may have become losses."""

    program: str
    prompt: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    of_job: dict[str, Any] = field(default_factory=dict)
    model: NamedModel = NamedModel()
    losses: list[Loss] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Settings that a loss tells of already."""

    def lose(self, what: str, remedy: str = NO_EQUAL, *, of_program: bool = False) -> None:
        """Record what a manifest cannot say; once, however often it is called."""
        loss = Loss(shortened(what, 200), remedy, of_program)
        if loss not in self.losses:
            self.losses.append(loss)

    def take(self, name: str, value: object, said: str) -> None:
        """The setting `name`, which the program calls `said`. Numbers may be texts; None says nothing."""
        if value is None or value == "":
            return
        values = IMAGE_SETTINGS[name].values
        found: object = value
        if isinstance(value, str) and values.column != "string":
            try:
                found = values.of_text(value.strip())
            except ManifestError:
                found = None
        elif isinstance(value, float) and values.column == "int64" and value.is_integer():
            found = int(value)
        plain = values.plain(found)
        if plain is None:
            self._leave_open(name, f"{said}: {value}", f"must be {values.words}")
        elif name == "guidance_scale" and plain < 1:
            self._leave_open(name, f"{said}: {value}", "is below 1, which only some pipelines take")
        else:
            self.settings[name] = plain

    def take_texts(self, prompt: object, negative_prompt: object = None) -> None:
        """The prompt and the negative prompt. Raises Untold where the first is none."""
        text = plain_text(prompt)
        if text is None:
            raise Untold("its prompt is no text that UTF-8 can hold")
        self.prompt = text
        if negative_prompt not in (None, ""):
            self.take("negative_prompt", negative_prompt, "negative prompt")

    def take_sampler(self, sampler: object, schedule: object = None) -> None:
        """The sampler by the program's name, and its schedule of noise levels."""
        if not isinstance(sampler, str) or not sampler:
            return
        spaced = schedule if isinstance(schedule, str) else ""
        said = f"sampler: {sampler}" + (f", schedule: {spaced}" if spaced else "")
        found = find_sampler(sampler, spaced)
        if found.name is None:
            self._leave_open("scheduler", said, "imagemill has no such sampler")
            return
        self.settings["scheduler"] = found.name
        if found.differs:
            self.lose(
                said, f"{found.differs}: `scheduler: {found.name}` is written, and the picture will differ"
            )

    def recipe(self, file: str, size: tuple[int, int]) -> Recipe:
        """The finished recipe of `file`; `size` is its picture's own width and height."""
        self._compare(*size)
        for name, word in _LEFT_OPEN.items():
            if name not in self.settings and name not in self.lost:
                self._leave_open(name, f"no {word}", "its file tells none")
        return Recipe(
            file, self.program, self.prompt, self.settings, self.of_job, self.model, tuple(self.losses)
        )

    def _compare(self, width: int, height: int) -> None:
        """Take the picture's own size where the text tells none, and say where the two differ."""
        told = self.settings.get("width"), self.settings.get("height")
        if told == (None, None) and not self.lost & {"width", "height"}:
            self.take("width", width, "width")
            self.take("height", height, "height")
        elif told != (width, height) and None not in told:
            self.lose(
                f"the picture is {width}x{height}",
                f"it was enlarged or cut after it was painted: {told[0]}x{told[1]} is written",
            )

    def _leave_open(self, name: str, what: str, why: str) -> None:
        self.lost.add(name)
        instead = "one is derived" if name == "seed" else "the model's own counts"
        self.lose(what, f"{why}: {instead} until `{name}` is given")
