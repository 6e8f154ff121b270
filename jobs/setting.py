"""What there is to know of one setting of an image: its values, its meaning, where it may be given."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal, get_type_hints

from jobs.adapters import Listed
from jobs.bounds import Values

Place = Literal["manifest", "settings", "prompt", "row", "sweep"]
"""Where a setting may be given: at the top of a manifest, in its `settings`, with one of its prompts, in a
row of a prompt file, in its `sweep`."""
PER_IMAGE: frozenset[Place] = frozenset({"settings", "prompt", "row", "sweep"})

NOWHERE: frozenset[Place] = frozenset()


@dataclass(frozen=True, slots=True)
class Setting:
    """What there is to know of one setting of an image."""

    values: Values
    """Which values are right."""
    meaning: str
    """One sentence for the author of a manifest."""
    places: frozenset[Place] = PER_IMAGE
    """Where it may be given."""
    by_model: bool = False
    """Where a manifest leaves it open, the model has its own default: `jobs.models.models.ModelDefaults`."""
    in_identity: bool = True
    """Whether images that differ in it have different image_ids."""
    added_later: bool = False
    """At its default it is left out of the identity and of the request's JSON, so that images rendered before
    the setting existed keep their ids and their bytes. True for every setting from now on."""
    pipelines: frozenset[str] = frozenset({"StableDiffusionPipeline"})
    """The classes of diffusers whose call takes it."""
    name: str = ""
    """The field's name; filled in by `image_settings`."""
    default: Any = ...
    """The field's default, ... when it has none, as in pydantic; filled in by `image_settings`."""

    @property
    def required(self) -> bool:
        """Whether every request must give it."""
        return self.default is ...

    def is_right(self, value: Any) -> bool:
        """Whether a request may have this value, read as JSON."""
        return (value is None and self.default is None) or self.values.plain(value) is not None

    def meant(self, value: Any) -> Any:
        """What a right value means: a scheduler's canonical name, 7.0 for 7."""
        return None if value is None else self.values.plain(value)

    @property
    def words(self) -> str:
        """Which values are right, for people: `a whole number, 1 to 1000`."""
        return f"{self.values.words}, or null" if self.default is None else self.values.words

    def identified(self, value: Any) -> Any:
        """What of a value image_ids follow from."""
        return self.values.identified(value) if isinstance(self.values, Listed) else value

    def left_out(self, value: Any) -> bool:
        """Whether the value is not written: it was added later and is at its default."""
        return self.added_later and bool(value == self.default)


def image_settings(request: type[Any]) -> dict[str, Setting]:
    """The settings of a request's class by their names, in the order of its fields."""
    hints = get_type_hints(request, include_extras=True)
    found = {}
    for field in fields(request):
        [setting] = hints[field.name].__metadata__
        default = ... if field.default is MISSING else field.default
        found[field.name] = replace(setting, name=field.name, default=default)
    return found
