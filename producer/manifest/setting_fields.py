"""Parts of a manifest with a field for each setting that may be given there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from jobs.bounds import one_each
from jobs.request import IMAGE_SETTINGS, settings_in
from jobs.setting import Place, Setting
from producer.manifest.written_files import WRITTEN


class Strict(BaseModel):
    """A part that refuses unknown keys and converts nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class _Made(Strict):
    """The base of models that stand in no source, for which pydantic would look for long."""

    model_config = ConfigDict(use_attribute_docstrings=False, defer_build=True)


def as_listed(name: str) -> Any:
    """A field with the default and the meaning of a setting."""
    return Field(IMAGE_SETTINGS[name].default, description=IMAGE_SETTINGS[name].meaning)


def _model(place: Place, field_of: Callable[[Setting], tuple[Any, Any]]) -> type[Strict]:
    """A model with a field for each setting that may be given there, as it is WRITTEN.

    Not for initial latents: a prompt alone names their file, and PromptLine has a field of its own.
    """
    here = [IMAGE_SETTINGS[name] for name in settings_in(place) if name != "init_latents"]
    written = [replace(setting, values=WRITTEN.get(setting.name, setting.values)) for setting in here]
    fields: dict[str, Any] = {setting.name: field_of(setting) for setting in written}
    return create_model(f"{place}_settings", __base__=_Made, **fields)


def _defaulted(setting: Setting) -> tuple[Any, Any]:
    annotation = setting.values.annotation
    if setting.by_model:
        usual = f"{setting.default} for Stable Diffusion 1.x"
        described = f"{setting.meaning} When left out, the model's own: {usual}."
        return annotation | None, Field(None, description=described)
    if setting.default is None:
        annotation |= None
    return annotation, Field(setting.default, description=setting.meaning)


def _open(setting: Setting) -> tuple[Any, Any]:
    return setting.values.annotation | None, Field(None, description=setting.meaning)


def _listed(setting: Setting) -> tuple[Any, Any]:
    described = f"The values to try. {setting.meaning}"
    return one_each(setting.values) | None, Field(None, description=described)


if TYPE_CHECKING:

    class SettingsFields(Strict):
        arguments: str = ""

    PromptFields = Strict
    SweepFields = Strict
else:
    SettingsFields = _model("settings", _defaulted)
    PromptFields = _model("prompt", _open)
    SweepFields = _model("sweep", _listed)
