"""Whether diffusers would load a LoRA's file into a model, all of it and as it is meant.

diffusers itself says nothing where it loads nothing, and widens the layers of a FLUX model to those of a LoRA
of another model, after which no picture can be painted: so this is asked before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from jobs.adapter_files.lora_file import LoraFile, LoraLayer, component_of, lora_of
from jobs.adapter_files.lora_layers import ModelLayers, Shapes
from jobs.adapter_files.lora_loaders import LOADERS, LoraLoader
from jobs.model_files.safetensors_header import HeaderError, SafetensorsHeader

_RENAME: Final = "docs/adapters.md shows how to rename them"
_FLUX: Final = "FluxLoraLoaderMixin"
_AS: Final = {
    "kohya": "kohya does (lora_unet_)",
    "comfyui": "ComfyUI does (diffusion_model.)",
    "peft": "peft does (base_model.model.)",
}
_OF_FLUX: Final = ("double_blocks", "single_blocks", "single_transformer_blocks")


@dataclass(frozen=True, slots=True)
class LoraVerdict:
    """What there is to say of a LoRA's file for a model."""

    trouble: str | None = None
    """Why it is not used, with the remedy; None where nothing speaks against it."""
    remark: str = ""
    """What people should know of a file that is used: which part of it is left out."""
    checked: int = 0
    """How many of its layers were compared with the model's own; 0 where those are not at hand."""


def check_lora(header: SafetensorsHeader, class_name: str | None, shapes: Shapes) -> LoraVerdict:
    """Whether a file with this header is a LoRA that diffusers loads into such a model as it is meant.

    `shapes`: the model's layers by component and module, `unet.mid_block.attentions.0.proj_in` -> the shape
    of its weight; those of components that are not at hand are left out, and then less is known.
    `class_name`: diffusers' class of the model, None where it is not known.
    """
    try:
        lora = lora_of(header)
    except HeaderError as error:
        return LoraVerdict(str(error))
    return check_read(lora, class_name, shapes)


def check_read(lora: LoraFile, class_name: str | None, shapes: Shapes) -> LoraVerdict:
    """The same for a file whose header was read."""
    if class_name is None:
        return LoraVerdict()
    loader = LOADERS.get(class_name)
    if loader is None:
        return LoraVerdict(class_trouble(class_name))
    trouble = _other_model(lora, loader, class_name)
    if trouble is None:
        trouble = _form_trouble(lora, loader, class_name)
    return LoraVerdict(trouble) if trouble is not None else _compared(lora, loader, class_name, shapes)


def class_trouble(class_name: str | None) -> str | None:
    """Why models of a class take no LoRA at all; None for one that does, and where it is not known."""
    if class_name is None or class_name in LOADERS:
        return None
    return f"diffusers loads no LoRA into a {class_name}: remove it, or name another model"


def _other_model(lora: LoraFile, loader: LoraLoader, class_name: str) -> str | None:
    """That the names of its layers are those of another kind of model."""
    of_flux = any(mark in name for name in lora.layers for mark in _OF_FLUX)
    if loader.denoiser == "unet" and (of_flux or "transformer" in _told(lora)):
        of = "a FLUX model" if of_flux else "a model with a transformer"
        return (
            f"is a LoRA of {of} ({lora.first}), and the model is a {class_name}: name a LoRA that was made "
            "for such a model"
        )
    of_unet = any(
        mark in name for name in lora.layers for mark in ("down_blocks", "input_blocks", "mid_block")
    )
    if loader.denoiser == "transformer" and (of_unet or "unet" in _told(lora)):
        return (
            f"is a LoRA of a UNet, as Stable Diffusion's ({lora.first}), and the model is a {class_name}: "
            "name a LoRA that was made for such a model"
        )
    return None


def _told(lora: LoraFile) -> tuple[str, ...]:
    return lora.components if lora.form == "diffusers" else ()


def _form_trouble(lora: LoraFile, loader: LoraLoader, class_name: str) -> str | None:
    """Why diffusers would load nothing of it, or not what is meant, by how its layers are named."""
    first, none = lora.first, f"diffusers would load none of them into a {class_name}"
    begin = f"they must begin with `{loader.denoiser}.`: {_RENAME}"
    if lora.dora_scales:
        return (
            "is a DoRA as kohya writes it: diffusers leaves its dora_scale out and paints something else: "
            "name a LoRA, or a DoRA with lora_magnitude_vector"
        )
    if lora.form == "bare" and not (loader.bare_with and (lora.alphas or lora.default)):
        return f"its layers are named without a component ({first}), and {none}: {begin}"
    unread = lora.form not in loader.forms and lora.form != "bare"
    if unread or (lora.form == "peft" and loader.name == _FLUX and not _of_fal(lora)):
        return f"its layers are named as {_AS[lora.form]} ({first}), and {none}: {begin}"
    if lora.form in loader.original and not lora.original_names:
        of_denoiser = [name for name in lora.layers if name.startswith(("lora_unet_", "diffusion_model."))]
        if of_denoiser:
            return (
                f"its layers are named as {_AS[lora.form]} with diffusers' own names ({of_denoiser[0]}), "
                f"which diffusers refuses for a {class_name}: {begin}"
            )
    if lora.form == "comfyui" and loader.comfyui_down and lora.pairs != {"lora_down"}:
        return (
            f"its layers are named as {_AS['comfyui']} with lora_A and lora_B ({first}), and {none}: "
            f"write lora_down and lora_up: {_RENAME}"
        )
    if lora.form == "diffusers" and not lora.pairs <= loader.pairs:
        return (
            f"its layers are named as diffusers does, but with lora_down and lora_up ({first}), and {none}: "
            f"write lora_A and lora_B: {_RENAME}"
        )
    if lora.form == "diffusers" and lora.alphas and not loader.alphas:
        return (
            f"its layers are named as diffusers does, but have alphas ({first}.alpha), which are not read "
            f"for a {class_name}: multiply each lora_B by alpha / rank, and leave the alphas out"
        )
    if lora.form == "kohya" and (queries := _queries_alone(lora)):
        return (
            f"its layers of a text encoder ({queries}, …) are without out_proj and mlp, and diffusers does "
            "not tell their form: take the text encoder's layers out, or name another file"
        )
    if lora.others and loader.strict:
        return (
            f"holds {lora.others[0]} beside its layers, and diffusers would load nothing of it: take such "
            "tensors out, or name another file"
        )
    return None


def _queries_alone(lora: LoraFile) -> str:
    """A layer of a text encoder of which a file in kohya's form has neither what diffusers knows the form by:
    out_proj nor a layer of an mlp; empty where it has."""
    of_encoders: dict[str, list[str]] = {}
    for name in lora.layers:
        if component := component_of(name, lora.form):
            of_encoders.setdefault(component, []).append(name)
    known = ("out_proj", "_mlp_")
    lacking = [
        names for names in of_encoders.values() if not any(one in name for name in names for one in known)
    ]
    return min(lacking[0]) if lacking else ""


def _of_fal(lora: LoraFile) -> bool:
    """Whether a file in peft's form has every layer that diffusers asks for (as fal's trainer writes it)."""
    names = ("double_blocks.0.img_mod.lin", "double_blocks.18.txt_mlp.2", "single_blocks.37.linear2")
    return all(f"base_model.model.{name}" in lora.layers for name in names)


def _compared(lora: LoraFile, loader: LoraLoader, class_name: str, shapes: Shapes) -> LoraVerdict:
    """Its layers against the model's own."""
    model = ModelLayers.of(shapes, loader.denoiser)
    left_out, checked, unknown = [], 0, 0
    for name, layer in lora.layers.items():
        told = component_of(name, lora.form)
        component = told if told else loader.denoiser
        if component not in loader.components:
            left_out.append(name)
            continue
        if not model.has(component):
            unknown += 1
            continue
        found = model.found(name, lora.form)
        if found is None:
            if _is_converted(lora, loader):
                unknown += 1
            else:
                left_out.append(name)
            continue
        trouble = _shape_trouble(name, layer, [model.shapes[one] for one in found])
        if trouble is not None:
            return LoraVerdict(
                f"is a LoRA of another model: {trouble}: name a LoRA that was made for this one"
            )
        checked += 1
    total = len(lora.layers)
    if left_out and checked + unknown == 0:
        return LoraVerdict(
            f"none of its {total:,} layers ({left_out[0]}, …) is one of the model's, a {class_name}: name a "
            "LoRA that was made for it"
        )
    remark = ""
    if left_out:
        remark = (
            f"{len(left_out):,} of its {total:,} layers ({left_out[0]}, …) are none that diffusers loads "
            "into this model, and are left out"
        )
    return LoraVerdict(None, remark, checked)


def _is_converted(lora: LoraFile, loader: LoraLoader) -> bool:
    """Whether diffusers converts names of layers in a way that is not known here: it is for FLUX and Stable
    Diffusion."""
    if loader.name in (_FLUX, "StableDiffusionXLLoraLoaderMixin"):
        return False
    return lora.form in ("comfyui", "peft", "bare") or (lora.form == "kohya" and lora.original_names)


def _shape_trouble(name: str, layer: LoraLayer, of_model: list[tuple[int, ...]]) -> str | None:
    """How a layer's matrices differ from the model's layers that they are for; None where they fit."""
    down, up = layer.down or (), layer.up or ()
    first = of_model[0]
    out = sum(one[0] for one in of_model)
    kernel = first[2:]
    if down[1] == first[1] and up[0] == out and len(down) == len(first) and down[2:] == kernel:
        return None
    made = f"{up[0]} x {down[1]}" + "".join(f" x {side}" for side in down[2:])
    has = f"{out} x {first[1]}" + "".join(f" x {side}" for side in kernel)
    return f"its {name} changes a layer of {made}, and the model's is {has} (out x in)"
