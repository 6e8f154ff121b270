"""Which layers of a model those of a LoRA's file are, by their names.

Layers of a model are called by component and module, `unet.down_blocks.0.attentions.0.proj_in`, as diffusers
and transformers have them in a folder's weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jobs.adapter_files.lora_file import KOHYA, Form, component_of

Shapes = Mapping[str, tuple[int, ...]]
"""A model's layers by their names -> the shape [out, in, …] of each one's weight."""

_TEXT_MODEL: Final = "text_model."
"""transformers has given it up, and files still have it."""
_FLUX_DOUBLE: Final[Mapping[str, tuple[str, ...]]] = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_FLUX_SINGLE: Final[Mapping[str, tuple[str, ...]]] = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
"""Names of FLUX' authors -> diffusers'; where one layer became several, its outputs are theirs in order."""
_FLUX: Final = re.compile(r"(double|single)_blocks_(\d+)_(\w+)")
_SGM: Final = re.compile(r"(input_blocks|middle_block|output_blocks)_(\d+)_(?:(\d+)_)?(\w+)")
_INNER: Final = ("resnets", "attentions", "upsamplers")
_MIDDLE: Final = ("resnets_0", "attentions_0", "resnets_1")
_OF_RESNET: Final = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE: Final = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
"""Layers of Stable Diffusion XL's UNet outside of its blocks, by its authors' names -> diffusers'."""


@dataclass(frozen=True, slots=True)
class ModelLayers:
    """A model's layers, found by names of any form."""

    shapes: Shapes
    denoiser: str
    flat: Mapping[str, str]
    """Component and module with underscores for dots -> the layer."""
    each_block: int
    """How many layers a block of a UNet has (`layers_per_block`)."""

    @classmethod
    def of(cls, shapes: Shapes, denoiser: str) -> ModelLayers:
        """The layers with these shapes; `denoiser` names the component that LoRAs change first."""
        flat = {_flat(name): name for name in shapes}
        first = f"{denoiser}.down_blocks.0.resnets."
        resnets = {name.removeprefix(first).partition(".")[0] for name in shapes if name.startswith(first)}
        return cls(shapes, denoiser, flat, max(1, len(resnets)))

    def has(self, component: str) -> bool:
        """Whether any layer of a component is known."""
        return any(name.startswith(f"{component}.") for name in self.shapes)

    def found(self, name: str, form: Form) -> tuple[str, ...] | None:
        """The layers that one of a LoRA's file changes, whose outputs are its outputs in this order; None
        where the model has none of that name."""
        component = component_of(name, form)
        component = component if component else self.denoiser
        module = _module(name, form)
        flux = _FLUX.fullmatch(module) if component == self.denoiser else None
        if flux is not None:
            modules = (_FLUX_DOUBLE if flux[1] == "double" else _FLUX_SINGLE).get(flux[3])
            prefix = "transformer_blocks" if flux[1] == "double" else "single_transformer_blocks"
            names = [f"{component}.{prefix}.{flux[2]}.{one}" for one in modules or ()]
            return tuple(names) if names and all(one in self.shapes for one in names) else None
        if component == self.denoiser:
            module = self._of_unet(module)
        layer = self.flat.get(_flat(f"{component}.{module}"))
        return None if layer is None else (layer,)

    def _of_unet(self, module: str) -> str:
        """diffusers' name of a layer of a UNet that its authors called otherwise.

        Source: `_maybe_map_sgm_blocks_to_diffusers` of diffusers/loaders/lora_conversion_utils.py.
        """
        if module in _OUTSIDE:
            return _OUTSIDE[module]
        found = _SGM.fullmatch(module)
        if found is None:
            return module
        blocks, number, inner, rest = found[1], int(found[2]), found[3], found[4]
        rest = _OF_RESNET.get(rest, rest)
        if blocks == "middle_block":
            return f"mid_block_{_MIDDLE[number]}_{rest}" if number < len(_MIDDLE) else module
        if inner is None or int(inner) >= len(_INNER):
            return module
        side = "down" if blocks == "input_blocks" else "up"
        block, layer = divmod(number - 1 if side == "down" else number, self.each_block + 1)
        if rest in ("op", "conv"):
            return f"{side}_blocks_{block}_{side}samplers_0_conv"
        return f"{side}_blocks_{block}_{_INNER[int(inner)]}_{layer}_{rest}"


def _module(name: str, form: Form) -> str:
    """A layer's name without what says the component; with underscores for dots where the form has them, and
    where names are those of the model's authors."""
    if form == "diffusers":
        module = name.partition(".")[2]
        # The attention processors of old had the weights.
        module = module.replace(".processor.", ".")
        return re.sub(r"\.to_out$", ".to_out.0", module)
    if form == "kohya":
        prefix = next(one for one in KOHYA if name.startswith(one))
        return name.removeprefix(prefix)
    module = name
    for prefix in ("base_model.model.", "model.", "diffusion_model."):
        module = module.removeprefix(prefix)
    if name.startswith("text_encoders."):
        module = module.split(".", 2)[2].removeprefix("transformer.")
    return module.replace(".", "_")


def _flat(name: str) -> str:
    component, _, module = name.partition(".")
    return f"{component}_{module.replace('.', '_').removeprefix(_TEXT_MODEL.replace('.', '_'))}"
