"""LoRA files of zeros, and the layers of the models that they are for."""

from __future__ import annotations

from pathlib import Path

from tests.checkpoint_files import Shapes, checkpoint, configuration

TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
SD_LAYERS = {
    "unet.conv_in": (32, 4, 3, 3),
    f"unet.{TO_Q}": (32, 32),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0": (32, 32),
    "unet.down_blocks.0.resnets.0.conv1": (32, 32, 3, 3),
    "text_encoder.text_model.encoder.layers.0.mlp.fc1": (64, 16),
}
"""Some of a Stable Diffusion model's."""
XL_LAYERS = SD_LAYERS | {
    "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k": (64, 48),
    "unet.mid_block.resnets.1.conv2": (64, 64, 3, 3),
    "unet.up_blocks.0.upsamplers.0.conv": (64, 64, 3, 3),
    "unet.down_blocks.0.downsamplers.0.conv": (32, 32, 3, 3),
    "unet.time_embedding.linear_1": (128, 32),
    "text_encoder_2.encoder.layers.0.mlp.fc1": (64, 32),
}
"""Some of a Stable Diffusion XL model's, with one layer a block."""
FLUX_BLOCK = "transformer.transformer_blocks.0.attn."
FLUX_LAYERS = {
    "transformer.x_embedder": (32, 64),
    **{f"{FLUX_BLOCK}{name}": (32, 32) for name in ("to_q", "to_k", "to_v", "to_out.0")},
    **{f"transformer.single_transformer_blocks.0.attn.to_{name}": (32, 32) for name in "qkv"},
    "transformer.single_transformer_blocks.0.proj_mlp": (128, 32),
    "text_encoder.encoder.layers.0.mlp.fc1": (64, 16),
}
"""Some of a FLUX model's."""

AB = (".lora_A.weight", ".lora_B.weight")
DOWN = (".lora_down.weight", ".lora_up.weight")
OLD = (".lora.down.weight", ".lora.up.weight")


def layer(
    name: str, out: int = 32, into: int = 32, ends: tuple[str, str] = AB, kernel: tuple[int, ...] = ()
) -> Shapes:
    """The matrices of one layer, of rank 2."""
    ones = [1] * len(kernel)
    return {f"{name}{ends[0]}": [2, into, *kernel], f"{name}{ends[1]}": [out, 2, *ones]}


def alpha(name: str) -> Shapes:
    """A layer's alpha."""
    return {f"{name}.alpha": []}


def lora(file: Path, *layers: Shapes) -> Path:
    """A safetensors file of zeros with these tensors."""
    shapes: dict[str, list[int]] = {}
    for one in layers:
        shapes |= one
    return checkpoint(file, shapes)


def stable_diffusion(folder: Path) -> Path:
    """A pipeline folder with SD_LAYERS, of zeros."""
    configuration(folder, "StableDiffusionPipeline")
    for component in ("unet", "text_encoder"):
        layers = {name: shape for name, shape in SD_LAYERS.items() if name.startswith(f"{component}.")}
        weights = {
            f"{name.removeprefix(f'{component}.')}.weight": list(shape) for name, shape in layers.items()
        }
        checkpoint(folder / component / "model.safetensors", weights)
    return folder


def lora_of(file: Path, module: str = TO_Q, out: int = 32, into: int = 32) -> Path:
    """A LoRA of one layer of the UNet, by default one that SD_LAYERS has."""
    return lora(file, layer(f"unet.{module}", out, into))
