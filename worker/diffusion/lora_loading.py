"""A LoRA's file into a pipeline: first its layers are compared with the model's, then all of it is loaded."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import delete_adapter_layers
from peft.tuners.lora import LoraLayer

from jobs.adapter_files.lora_check import check_lora
from jobs.errors import OutputError, RenderError
from jobs.model_files.safetensors_header import HeaderError, header_of
from worker.diffusion.lora_fit import base_layer, layers_of, lora_models
from worker.diffusion.lora_turns import tuned_layers, turn_off

_LOUD = ("diffusers", "transformers", "peft")
"""Libraries that log, or print as warnings, what is said here in one sentence."""
_NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError, NotImplementedError)
"""What the libraries raise for a file that they do not know; of a device it is RuntimeError."""


@dataclass(frozen=True, slots=True)
class LoadedLora:
    """A LoRA that a pipeline holds."""

    adapter: str
    """What the pipeline calls it."""
    components: frozenset[str]
    """The components that it changes, by their names in the pipeline."""
    layers: tuple[LoraLayer, ...]
    """Those that it changes."""
    size: int
    """Bytes that it takes on the device."""


def load_lora(pipeline: DiffusionPipeline, file: Path, adapter: str) -> LoadedLora:
    """Adds a LoRA to a pipeline, where it is called `adapter`; no LoRA is on then.

    Its parts are on their layer's device, in its number format and memory format.
    Raises RenderError for a file that is no LoRA of this model, and OutputError for one that cannot be read:
    the pipeline is left as it was. What the device raises is passed on.
    """
    _check_header(pipeline, file)
    loading = copy.copy(pipeline)
    layers: dict[str, set[str]] = {}

    def checked(*args: Any, **kwargs: Any) -> Any:
        # diffusers asks for the tensors, by its own names, before it touches a layer. Of FLUX it would widen
        # layers that do not fit, and leave a model that paints nothing any more.
        given = type(pipeline).lora_state_dict(*args, **kwargs)
        layers.update(layers_of(pipeline, given[0] if isinstance(given, tuple) else given))
        return given

    loading.__dict__["lora_state_dict"] = checked
    weights = [weight for model in lora_models(pipeline).values() for weight in model.parameters()]
    flags = [weight.requires_grad for weight in weights]
    try:
        with _quiet():
            # By its path: given as tensors, it would lose the scales that its header may hold.
            loading.load_lora_weights(
                str(file), adapter_name=adapter, use_safetensors=True, local_files_only=True
            )
        loaded = _settle(pipeline, layers, adapter)
    except Exception as error:
        forget_lora(pipeline, adapter)
        if isinstance(error, OSError):
            raise OutputError(f"{file}: cannot be read: {_first_line(error)}") from None
        if isinstance(error, _NOT_UNDERSTOOD) or "Error(s) in loading state_dict" in str(error):
            raise RenderError(f"diffusers cannot load it ({_first_line(error)}): use another file") from None
        raise
    finally:
        # PEFT freezes the model's own weights, and torch multiplies by frozen ones in another order.
        for weight, flag in zip(weights, flags, strict=True):
            weight.requires_grad_(flag)
        turn_off(tuned_layers(pipeline))
    return loaded


def forget_lora(pipeline: DiffusionPipeline, adapter: str) -> None:
    """Takes a LoRA out of a pipeline, also one that was loaded in part; the others stay as they are."""
    with _quiet():
        for model in lora_models(pipeline).values():
            delete_adapter_layers(model, adapter)
            getattr(model, "peft_config", {}).pop(adapter, None)


def _check_header(pipeline: DiffusionPipeline, file: Path) -> None:
    """Raises RenderError for what is no LoRA of this model by its header, as the producer refuses it."""
    shapes = {
        f"{component}.{name}": tuple(layer.weight.shape)
        for component, model in lora_models(pipeline).items()
        for name, module in model.named_modules()
        if isinstance(layer := base_layer(module), torch.nn.Linear | torch.nn.Conv2d)
    }
    try:
        verdict = check_lora(header_of(file), type(pipeline).__name__, shapes)
    except HeaderError as error:
        raise RenderError(str(error)) from None
    if verdict.trouble is not None:
        raise RenderError(verdict.trouble)


def _settle(pipeline: DiffusionPipeline, layers: Mapping[str, set[str]], adapter: str) -> LoadedLora:
    """Puts the parts of a LoRA where their layers are.

    Raises RenderError for a layer that was not loaded.
    """
    changed: list[LoraLayer] = []
    size = 0
    for component, names in layers.items():
        if adapter not in pipeline.get_list_adapters().get(component, ()):
            raise RenderError(f"diffusers loads nothing of it into {component}: use another file")
        model = getattr(pipeline, component)
        modules = dict(model.named_modules())
        for name in sorted(names):
            layer = modules[name]
            parts = _adapter_parts(layer, adapter)
            if not parts:
                raise RenderError(f"diffusers does not load its layer {component}.{name}: use another file")
            weight = base_layer(layer).weight
            for part in parts:
                part.requires_grad_(False).to(weight.device, weight.dtype)
                if isinstance(part, torch.nn.Conv2d) and weight.is_contiguous(
                    memory_format=torch.channels_last
                ):
                    part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                size += sum(one.nbytes for one in part.parameters())
            changed.append(layer)
        model.eval()  # a new layer is in training, with the dropout that its file may name
    return LoadedLora(adapter, frozenset(layers), tuple(changed), size)


def _adapter_parts(module: Any, adapter: str) -> list[torch.nn.Module]:
    held = (getattr(module, name, {}) for name in ("lora_A", "lora_B", "lora_magnitude_vector"))
    return [parts[adapter] for parts in held if adapter in parts]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the libraries print no warnings and log nothing: what matters is raised."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
