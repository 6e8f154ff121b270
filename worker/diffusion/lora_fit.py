"""The layers that a LoRA has parts for, compared with those of a pipeline before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from jobs.errors import RenderError

_PART = re.compile(r"(?P<layer>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(?P<kind>\.weight|\.bias|)")
_OTHER_MODEL = "use a LoRA for this model"
_OTHER_FILE = "use another file"

Parts = Mapping[str, tuple[int, ...]]
"""The shapes of a layer's parts: `lora_A.weight` and so on."""


def lora_models(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """The components that LoRAs may have layers for, by name."""
    names = getattr(pipeline, "_lora_loadable_modules", ())
    models = {name: getattr(pipeline, name, None) for name in names}
    return {name: model for name, model in models.items() if isinstance(model, ModelMixin | PreTrainedModel)}


def base_layer(module: Any) -> Any:
    """A layer itself, without the LoRAs around it."""
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def layers_of(pipeline: DiffusionPipeline, tensors: Mapping[str, torch.Tensor]) -> dict[str, set[str]]:
    """The layers of the pipeline that a LoRA changes, by component; those of no component are left out.

    tensors: by the names that `lora_state_dict` of the pipeline's class gives them.
    Raises RenderError for a LoRA that does not fit the pipeline's layers, or changes none of them.
    """
    models = lora_models(pipeline)
    layers: dict[str, set[str]] = {}
    for component, model in models.items():
        prefix = f"{component}."
        of_one = {
            name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
        }
        modules = dict(model.named_modules()) if of_one else {}
        for layer, shapes in _parts(component, _as_peft(model, of_one)).items():
            if layer in modules:
                _check(f"{component}.{layer}", base_layer(modules[layer]), shapes)
                layers.setdefault(component, set()).add(layer)
    if not layers:
        first = f" ({next(iter(tensors))}, …)" if tensors else ""
        raise RenderError(
            f"changes with none of its {len(tensors):,} tensors{first} a layer of {', '.join(models)}: "
            f"{_OTHER_MODEL}"
        )
    return layers


def _as_peft(model: Any, tensors: dict[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """A component's tensors under the names that diffusers gives them when it loads them."""
    converted: dict[str, torch.Tensor]
    if not tensors:
        return tensors
    if isinstance(model, ModelMixin):
        is_peft = "lora_A" in next(iter(tensors))
        converted = tensors if is_peft else convert_unet_state_dict_to_peft(tensors)
        return {name.replace(".processor.", "."): tensor for name, tensor in converted.items()}
    converted = convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
    if not hasattr(model, "text_model"):
        converted = {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
    return converted


def _parts(component: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, Parts]:
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        match = _PART.fullmatch(name)
        if match is None:
            raise RenderError(f"has {component}.{name}, which is no part of a LoRA: {_OTHER_FILE}")
        part = match["part"] + (match["kind"] if match["kind"] else ".weight")
        parts.setdefault(match["layer"], {})[part] = tuple(tensor.shape)
    return dict(parts)


def _check(name: str, layer: Any, shapes: Parts) -> None:
    """Raises RenderError for parts that do not fit a layer."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor):
        raise RenderError(f"changes {name}, which is no layer with weights: {_OTHER_MODEL}")
    down, up = shapes.get("lora_A.weight"), shapes.get("lora_B.weight")
    if down is None or up is None:
        raise RenderError(f"has one half of {name} alone: it is damaged, {_OTHER_FILE}")
    outputs, inputs = tuple(weight.shape[:1]), tuple(weight.shape[1:])
    alone = [shape for part, shape in shapes.items() if part not in ("lora_A.weight", "lora_B.weight")]
    if (up[:1], down[1:]) != (outputs, inputs) or any(shape[:1] != outputs for shape in alone):
        raise RenderError(
            f"changes {name} as a layer of {_by(up[:1] + down[1:])}, and the model's is of "
            f"{_by(outputs + inputs)}: {_OTHER_MODEL}"
        )
    if up[1:2] != down[:1] or len(up) != weight.ndim:
        raise RenderError(f"has halves of {name} of {_by(down)} and {_by(up)}: it is damaged, {_OTHER_FILE}")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
