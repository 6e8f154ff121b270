"""`controlnet` of a manifest: a model, or a list of models with their scales."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from jobs.adapters import MOST_SCALE
from jobs.model_files.safetensors_header import SUFFIX
from jobs.models.models import BUILT_IN
from producer.manifest.fields import ModelName, Revision
from producer.manifest.setting_fields import Strict

_MOST: Final = 8
"""ControlNets of a job; what is used in practice is three at most."""


def _folder_or_id(model: str) -> str:
    if model in BUILT_IN or model.endswith(SUFFIX):
        what = "is no ControlNet: name a folder as save_pretrained() writes it, or a Hugging Face id"
        raise PydanticCustomError("model", "{what}", {"what": what})
    return model


class WrittenControlNet(Strict):
    """A ControlNet, which all pictures of a `control_image` are painted by."""

    model: Annotated[ModelName, AfterValidator(_folder_or_id)]
    """A folder as save_pretrained() writes it (begins with ./ ../ ~ or /), or a Hugging Face id."""
    revision: Revision | None = None
    """The ControlNet's commit, branch or tag, or the sha256:… of a folder."""
    scale: Annotated[float, Field(ge=0.0, le=MOST_SCALE, strict=False)] = 1.0
    """How much it has to say beside others; `controlnet_conditioning_scale` is of all."""


def _as_controlnets(value: object) -> object:
    """A bare name as a mapping, one as a list of one."""
    several = value if isinstance(value, (list, tuple)) else [value]
    return [{"model": one} if isinstance(one, str) else one for one in several]


_Written = str | WrittenControlNet | Annotated[list[str | WrittenControlNet], Field(min_length=1)]
ControlNets = Annotated[
    tuple[WrittenControlNet, ...],
    Field(min_length=1, max_length=_MOST, strict=False),
    BeforeValidator(_as_controlnets, json_schema_input_type=_Written),
]
"""What a manifest may say; () is none."""
