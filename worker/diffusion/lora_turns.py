"""Layers that paint with their LoRAs or without, turned in one step each.

diffusers' own `set_adapters` visits every part of every LoRA that is loaded, to say which may be trained.
With twenty loaded that takes fifty times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diffusers import DiffusionPipeline
from peft.tuners.lora import LoraLayer

from worker.diffusion.lora_fit import lora_models


def tuned_layers(pipeline: DiffusionPipeline) -> list[LoraLayer]:
    """Every layer that has, or had, a LoRA beside it."""
    models = lora_models(pipeline).values()
    return [module for model in models for module in model.modules() if isinstance(module, LoraLayer)]


def turn_off(layers: Iterable[LoraLayer]) -> None:
    """Makes layers compute as if they had no LoRA."""
    for layer in layers:
        _turn(layer, [], off=True)


def turn_on(layer: LoraLayer, adapters: Sequence[tuple[str, float]]) -> None:
    """Makes a layer add these LoRAs of its own and no others, by name and scale, in their order."""
    for name, scale in adapters:
        layer.set_scale(name, scale)
    _turn(layer, [name for name, _scale in adapters], off=False)


def _turn(layer: LoraLayer, names: list[str], *, off: bool) -> None:
    # What PEFT's own `set_adapter` and `enable_adapters` set, besides the flags of training.
    layer._active_adapter, layer._disable_adapters = names, off
    if layer.active_adapters != names or layer.disable_adapters != off:
        raise RuntimeError(
            "this PEFT keeps elsewhere which LoRAs are on: install the version of constraints.txt"
        )
