"""What kind of model a safetensors file is, by its tensors' names and shapes, and which parts it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jobs.model_files.safetensors_header import SafetensorsHeader
from jobs.pipelines.pipeline_class import STABLE_DIFFUSION

_UNET: Final = "model.diffusion_model."
_FLUX: Final = "double_blocks.0.img_attn.norm.key_norm.scale"
_CLIP: Final = "text_model.embeddings.position_embedding.weight"
_ADAPTERS: Final = ("lora_", ".lora.", "hada_w", "lokr_w", "oft_blocks", "dora_scale")
_SCALED: Final = (".scale_weight", ".weight_scale", ".weight_scale_2", ".scale_input", ".input_scale")
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True, slots=True)
class Part:
    """Where a component of a pipeline lies in a checkpoint."""

    prefixes: tuple[str, ...]
    """A tensor of the component has a name that begins with one of these."""
    marker: str = ""
    """The tensor by which diffusers knows that it is there; empty: the prefix is enough."""


_VAE: Final = Part(("first_stage_model.", "vae."))


@dataclass(frozen=True, slots=True)
class CheckpointKind:
    """A kind of single-file checkpoint that is read."""

    name: str
    """What people call it."""
    pipeline: str
    """diffusers' class."""
    repository: str
    """The hub repository whose configuration diffusers takes for it."""
    parts: Mapping[str, Part]
    """Its components with weights, the denoiser first."""

    @property
    def denoiser(self) -> str:
        """The name of the component that a checkpoint of this kind always holds."""
        return next(iter(self.parts))


_FLUX_PARTS: Final = {
    "transformer": Part(
        (
            _UNET, "double_blocks.", "single_blocks.", "final_layer.", "img_in.", "txt_in.", "time_in.",
            "vector_in.", "guidance_in.",
        )
    ),
    "vae": _VAE,
    "text_encoder": Part(("text_encoders.clip_l.",), f"text_encoders.clip_l.transformer.{_CLIP}"),
    "text_encoder_2": Part(("text_encoders.t5xxl.",), "text_encoders.t5xxl.transformer.shared.weight"),
}  # fmt: skip

SD1: Final = CheckpointKind(
    "Stable Diffusion 1",
    STABLE_DIFFUSION,
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    {
        "unet": Part((_UNET,)),
        "vae": _VAE,
        "text_encoder": Part(("cond_stage_model.",), f"cond_stage_model.transformer.{_CLIP}"),
    },
)
SDXL: Final = CheckpointKind(
    "Stable Diffusion XL",
    "StableDiffusionXLPipeline",
    "stabilityai/stable-diffusion-xl-base-1.0",
    {
        "unet": Part((_UNET,)),
        "vae": _VAE,
        "text_encoder": Part(("conditioner.embedders.0.",), f"conditioner.embedders.0.transformer.{_CLIP}"),
        "text_encoder_2": Part(
            ("conditioner.embedders.1.",), "conditioner.embedders.1.model.positional_embedding"
        ),
    },
)
FLUX_DEV: Final = CheckpointKind(
    "FLUX.1 dev", "FluxPipeline", "black-forest-labs/FLUX.1-dev", _FLUX_PARTS
)  # fmt: skip
FLUX_SCHNELL: Final = CheckpointKind(
    "FLUX.1 schnell", "FluxPipeline", "black-forest-labs/FLUX.1-schnell", _FLUX_PARTS
)

KINDS: Final = {"v1": SD1, "xl_base": SDXL, "flux-dev": FLUX_DEV, "flux-schnell": FLUX_SCHNELL}
"""diffusers' own word -> the kind."""


def kind_of(header: SafetensorsHeader) -> CheckpointKind | str:
    """The kind of a checkpoint; of a file that is none that is read, what it looks like.

    Source: `infer_diffusers_model_type` of diffusers/loaders/single_file_utils.py, which takes what it does
    not know for Stable Diffusion 1.
    """
    tensors = header.tensors
    if any(word in name for name in tensors for word in _ADAPTERS):
        return "a LoRA or another adapter, which changes a model and is none"
    if any(name.startswith(("control_model.", "controlnet_")) for name in tensors):
        return "a ControlNet"
    for prefix in (_UNET, ""):
        if prefix + _FLUX in tensors:
            return _kind_of_flux(header, prefix)
    if f"{_UNET}input_blocks.0.0.weight" in tensors:
        return _kind_of_unet(header)
    return _other(header)


def _kind_of_flux(header: SafetensorsHeader, prefix: str) -> CheckpointKind | str:
    if header.has(f"{prefix}distilled_guidance_layer."):
        return "Chroma"
    if header.has(f"{prefix}single_stream_modulation."):
        return "FLUX.2"
    width = _width(header, f"{prefix}img_in.weight")
    if width == 384:
        return "FLUX.1 Fill"
    if width == 128:
        return "FLUX.1 Depth or Canny"
    return FLUX_DEV if header.has(f"{prefix}guidance_in.") else FLUX_SCHNELL


def _kind_of_unet(header: SafetensorsHeader) -> CheckpointKind | str:
    if _width(header, f"{_UNET}input_blocks.0.0.weight") == 9:
        return "a model of inpainting"
    if "edm_mean" in header.tensors:
        return "Playground 2.5"
    if header.has("conditioner.embedders.0.model."):
        return "the refiner of Stable Diffusion XL"
    if f"{_UNET}label_emb.weight" in header.tensors:
        return "the upscaler of Stable Diffusion"
    if header.has(f"{_UNET}label_emb.0.0."):
        return SDXL
    if header.has("cond_stage_model.model."):
        return "Stable Diffusion 2"
    return SD1


def _other(header: SafetensorsHeader) -> str:
    for prefixes, what in (
        (("encoder.conv_in.", "decoder.conv_in.", "first_stage_model.", "vae."), "a VAE alone"),
        (("model.diffusion_model.joint_blocks.", "joint_blocks."), "Stable Diffusion 3"),
        (("text_model.", "encoder.block.", "transformer.resblocks.", "text_encoders."), "a text encoder"),
        (("emb_params", "clip_g", "clip_l", "string_to_param"), "a textual inversion"),
        (
            ("down_blocks.", "conv_in.", "transformer_blocks.", "single_transformer_blocks."),
            "one component of a diffusers folder, without the others",
        ),
    ):  # fmt: skip
        if any(header.has(prefix) for prefix in prefixes):
            return what
    first = min(header.tensors, default="")
    return (
        f"no checkpoint that is known (its first tensor is {first})" if first else "a file without a tensor"
    )


def _width(header: SafetensorsHeader, name: str) -> int | None:
    """The second axis of a tensor: how many channels it takes."""
    tensor = header.tensors.get(name)
    return tensor.shape[1] if tensor is not None and len(tensor.shape) > 1 else None


def held_parts(kind: CheckpointKind, header: SafetensorsHeader) -> frozenset[str]:
    """The components whose weights a checkpoint holds.

    Raises ValueError, with the reason, for one in a layout that diffusers does not read.
    """
    held = {name for name, part in kind.parts.items() if any(map(header.has, part.prefixes))}
    for name in sorted(held):
        marker = kind.parts[name].marker
        if marker and marker not in header.tensors:
            raise ValueError(f"its {name} is in a layout that diffusers does not read: it has no {marker}")
    return frozenset(held)


def quantised(kind: CheckpointKind, header: SafetensorsHeader) -> str | None:
    """The name of a tensor that shows that weights are quantised, so that diffusers would read them wrong."""
    prefixes = tuple(prefix for part in kind.parts.values() for prefix in part.prefixes)
    for name, tensor in header.tensors.items():
        if name.endswith(_SCALED) or name.rpartition(".")[2] == "scaled_fp8":
            return name
        if name.startswith(prefixes) and name.endswith((".weight", ".bias")) and tensor.dtype not in _FLOATS:
            return name
    return None
