"""What both a checkpoint and its configuration say of a model: a wrong configuration is found out early.

A worker refuses weights that are missing or left over, and shapes that differ, whatever is compared here. The
layers of text encoders and what the UNet predicts, diffusers would overlook.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from jobs.model_files.checkpoint_kind import CheckpointKind
from jobs.model_files.pipeline_folder import Read
from jobs.model_files.safetensors_header import SafetensorsHeader

_LAYER: Final = re.compile(r"\.(?:encoder\.layers|transformer\.resblocks|encoder\.block)\.(\d+)\.")
_UNET: Final = "model.diffusion_model."
_PREDICTS: Final = {"v": "v_prediction", "epsilon": "epsilon"}
"""The note of sai_model_spec -> diffusers' word."""

Figure = tuple[str, Any, Any]
"""What it is, and its values in the checkpoint and in the configuration."""


def figures(
    kind: CheckpointKind, *, held: Collection[str], header: SafetensorsHeader, read: Read
) -> Iterator[Figure]:
    """What can be compared of a checkpoint that holds the components `held`."""

    def config(name: str) -> dict[str, Any]:
        try:
            found = read(name)
        except KeyError:
            return {}
        return found if isinstance(found, dict) else {}

    of_denoiser = _of_unet if kind.denoiser == "unet" else _of_flux
    yield from of_denoiser(header, config(f"{kind.denoiser}/config.json"))
    if kind.denoiser == "unet":
        yield from _of_prediction(header, config("scheduler/scheduler_config.json"))
    for component, part in kind.parts.items():
        of_encoder = config(f"{component}/config.json")
        layers = of_encoder.get("num_hidden_layers", of_encoder.get("num_layers"))
        if part.marker and component in held and layers is not None:
            yield f"the layers of its {component} are", _layers(header, part.prefixes), layers


def _of_unet(header: SafetensorsHeader, config: dict[str, Any]) -> Iterator[Figure]:
    shape = header.tensors[f"{_UNET}input_blocks.0.0.weight"].shape
    if "in_channels" in config:
        yield "the channels that its UNet takes are", shape[1], config["in_channels"]
    if isinstance(config.get("block_out_channels"), list):
        yield "the width of its UNet is", shape[0], config["block_out_channels"][0]


def _of_flux(header: SafetensorsHeader, config: dict[str, Any]) -> Iterator[Figure]:
    names = [name.removeprefix(_UNET) for name in header.tensors]
    if "guidance_embeds" in config:
        guided = any(name.startswith("guidance_in.") for name in names)
        yield (
            "its embedding of guidance (FLUX.1 dev has one, schnell none) is",
            guided,
            config["guidance_embeds"],
        )
    for blocks, key in (("double_blocks", "num_layers"), ("single_blocks", "num_single_layers")):
        if key in config:
            numbers = {name.split(".")[1] for name in names if name.startswith(f"{blocks}.")}
            yield f"its {blocks} are", len(numbers), config[key]


def _of_prediction(header: SafetensorsHeader, config: dict[str, Any]) -> Iterator[Figure]:
    noted = header.metadata.get("modelspec.prediction_type", header.metadata.get("modelspec.predict_key"))
    predicted = "v_prediction" if "v_pred" in header.tensors else _PREDICTS.get(str(noted))
    if predicted is not None:
        yield "prediction_type of its sampler is", predicted, config.get("prediction_type", "epsilon")
    if "ztsnr" in header.tensors:
        rescaled = config.get("rescale_betas_zero_snr", False)
        yield "rescale_betas_zero_snr of its sampler is", True, rescaled


def _layers(header: SafetensorsHeader, prefixes: tuple[str, ...]) -> int:
    names = (name for name in header.tensors if name.startswith(prefixes))
    return len({found[1] for found in map(_LAYER.search, names) if found is not None})
