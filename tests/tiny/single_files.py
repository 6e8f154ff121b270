"""Tiny pipelines as single-file checkpoints: weights under the names of the models' first programs.

The inverse of diffusers' converters (diffusers/loaders/single_file_utils.py), for the tiny pipelines here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FluxTransformer2DModel, UNet2DConditionModel
from safetensors.torch import save_file

Weights = dict[str, torch.Tensor]

_UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
_UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
_OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    ".fc1.": ".c_fc.",
    ".fc2.": ".c_proj.",
    ".self_attn.": ".attn.",
}


def stable_diffusion_weights(pipeline: DiffusionPipeline) -> Weights:
    """Stable Diffusion 1 as CompVis' program names its weights."""
    return {
        **_prefixed("model.diffusion_model.", _unet(pipeline.unet)),
        **_prefixed("first_stage_model.", _vae(pipeline.vae)),
        **_prefixed("cond_stage_model.transformer.", _clip(pipeline.text_encoder)),
    }


def stable_diffusion_xl_weights(pipeline: DiffusionPipeline) -> Weights:
    """Stable Diffusion XL as Stability's program names its weights; the second encoder is OpenCLIP's."""
    return {
        **_prefixed("model.diffusion_model.", _unet(pipeline.unet)),
        **_prefixed("first_stage_model.", _vae(pipeline.vae)),
        **_prefixed("conditioner.embedders.0.transformer.", _clip(pipeline.text_encoder)),
        **_prefixed("conditioner.embedders.1.model.", _open_clip(pipeline.text_encoder_2)),
    }


def t5_weights(pipeline: DiffusionPipeline) -> Weights:
    """FLUX's second text encoder as ComfyUI keeps it in one file; its embedding has one name."""
    weights = dict(pipeline.text_encoder_2.state_dict())
    del weights["encoder.embed_tokens.weight"]
    return _prefixed("text_encoders.t5xxl.transformer.", weights)


def save_weights(weights: Mapping[str, torch.Tensor], file: Path, **metadata: str) -> None:
    """Writes the checkpoint; `metadata` is noted in its header."""
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file, metadata)


def _prefixed(prefix: str, weights: Mapping[str, torch.Tensor]) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def _replaced(text: str, words: Mapping[str, str]) -> str:
    for word, other in words.items():
        text = text.replace(word, other)
    return text


def _unet(unet: UNet2DConditionModel) -> Weights:
    layers = unet.config.layers_per_block

    def block(name: str) -> str:
        """`down_blocks.1.resnets.0.norm1.weight` -> `input_blocks.3.0.in_layers.0.weight`"""
        for word, other in _UNET_ENDS.items():
            if name.startswith(word):
                return other + name.removeprefix(word)
        middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name)
        if middle is not None:
            number = 1 if middle[1] == "attentions" else 2 * int(middle[2])
            return f"middle_block.{number}.{_resnet(middle[1], middle[3])}"
        found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name)
        assert found is not None, name
        way, index, what, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        if what == "downsamplers":
            return f"input_blocks.{(index + 1) * (layers + 1)}.0.{rest.replace('conv.', 'op.')}"
        if what == "upsamplers":
            last = unet.up_blocks[index]
            place = 2 if hasattr(last, "attentions") else 1
            return f"output_blocks.{index * (layers + 1) + layers}.{place}.{rest}"
        number = index * (layers + 1) + layer
        first = f"input_blocks.{number + 1}" if way == "down" else f"output_blocks.{number}"
        return f"{first}.{1 if what == 'attentions' else 0}.{_resnet(what, rest)}"

    return {block(name): tensor for name, tensor in unet.state_dict().items()}


def _resnet(what: str, rest: str) -> str:
    return _replaced(rest, _UNET_RESNET) if what == "resnets" else rest


def _vae(vae: AutoencoderKL) -> Weights:
    blocks = len(vae.config.block_out_channels)

    def named(name: str) -> str:
        name = name.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
        name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", name)
        turned: Callable[[re.Match[str]], str] = lambda found: f"up.{blocks - 1 - int(found[1])}."  # noqa: E731
        name = re.sub(r"up_blocks\.(\d)\.", turned, name)
        return name.replace("upsamplers.0.", "upsample.").replace("resnets.", "block.")

    return {named(name): tensor for name, tensor in vae.state_dict().items()}


def _clip(encoder: torch.nn.Module) -> Weights:
    """The names of transformers before 5.6, which had `text_model.` in front."""
    names = encoder.state_dict().items()
    return {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in names}


def _open_clip(encoder: torch.nn.Module) -> Weights:
    given = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    found: Weights = {"text_projection": given.pop("text_projection.weight").T}
    for end in ("weight", "bias"):
        for name in [name for name in given if name.endswith(f"self_attn.q_proj.{end}")]:
            parts = [given.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
            joined = _replaced(name.removesuffix(f"q_proj.{end}"), _OPEN_CLIP)
            found[f"{joined}in_proj_{end}"] = torch.cat(parts)
    return found | {_replaced(name, _OPEN_CLIP): tensor for name, tensor in given.items()}


def flux_weights(transformer: FluxTransformer2DModel) -> Weights:
    """FLUX.1's transformer as Black Forest Labs' program names its weights."""
    return dict(_flux(transformer.state_dict()))


_FLUX_DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_FLUX_NORMS = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
_FLUX_SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
}
_FLUX_ENDS = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "final_layer.linear": "proj_out",
}


def _flux(given: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    for end in ("weight", "bias"):
        for name, theirs in _FLUX_ENDS.items():
            if f"{theirs}.{end}" in given:
                yield f"{name}.{end}", given[f"{theirs}.{end}"]
        scale, shift = given[f"norm_out.linear.{end}"].chunk(2)
        yield f"final_layer.adaLN_modulation.1.{end}", torch.cat([shift, scale])
        yield from _flux_blocks(given, end, ("double_blocks", "transformer_blocks"), _FLUX_DOUBLE)
        yield from _flux_blocks(given, end, ("single_blocks", "single_transformer_blocks"), _FLUX_SINGLE)
    for number in _numbers(given, "transformer_blocks"):
        for name, theirs in _FLUX_NORMS.items():
            yield (
                f"double_blocks.{number}.{name}.scale",
                given[f"transformer_blocks.{number}.{theirs}.weight"],
            )
    for number in _numbers(given, "single_transformer_blocks"):
        for name, letter in (("query_norm", "q"), ("key_norm", "k")):
            theirs = f"single_transformer_blocks.{number}.attn.norm_{letter}.weight"
            yield f"single_blocks.{number}.norm.{name}.scale", given[theirs]


def _flux_blocks(
    given: Mapping[str, torch.Tensor],
    end: str,
    blocks: tuple[str, str],
    names: Mapping[str, tuple[str, ...]],
) -> Iterator[tuple[str, torch.Tensor]]:
    for number in _numbers(given, blocks[1]):
        for name, theirs in names.items():
            parts = [given[f"{blocks[1]}.{number}.{their}.{end}"] for their in theirs]
            yield f"{blocks[0]}.{number}.{name}.{end}", torch.cat(parts)


def _numbers(given: Mapping[str, torch.Tensor], block: str) -> set[str]:
    return {name.split(".")[1] for name in given if name.startswith(f"{block}.")}
