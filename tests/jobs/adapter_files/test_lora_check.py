"""What is said of LoRA files for models: each row of what diffusers does with them when it is not asked."""

from __future__ import annotations

import pytest

from jobs.adapter_files.lora_check import LoraVerdict, check_lora
from jobs.adapter_files.lora_layers import Shapes
from jobs.model_files.safetensors_header import SafetensorsHeader, StoredTensor
from tests.checkpoint_files import Shapes as Tensors
from tests.lora_headers import (
    DOWN,
    FLUX_BLOCK,
    FLUX_LAYERS,
    OLD,
    SD_LAYERS,
    TO_Q,
    XL_LAYERS,
    alpha,
    layer,
)

SD, XL, FLUX = "StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline"
KOHYA = f"lora_unet_{TO_Q.replace('.', '_')}"
LAYERS = {SD: SD_LAYERS, XL: XL_LAYERS, FLUX: FLUX_LAYERS}


def checked(class_name: str, *layers: Tensors, shapes: Shapes | None = None) -> LoraVerdict:
    tensors = {name: StoredTensor("F16", tuple(shape)) for one in layers for name, shape in one.items()}
    known = LAYERS.get(class_name, {}) if shapes is None else shapes
    return check_lora(SafetensorsHeader(tensors, {}), class_name, known)


def trouble(class_name: str, *layers: Tensors, shapes: Shapes | None = None) -> str:
    found = checked(class_name, *layers, shapes=shapes).trouble
    assert found is not None
    return found


GOOD: dict[str, tuple[str, tuple[Tensors, ...]]] = {
    "diffusers' keys": (SD, (layer(f"unet.{TO_Q}"),)),
    "diffusers' keys for FLUX": (FLUX, (layer(f"{FLUX_BLOCK}to_q"),)),
    "alphas, which FLUX alone reads": (
        FLUX,
        (layer(f"{FLUX_BLOCK}to_q"), alpha(f"{FLUX_BLOCK}to_q")),
    ),
    "lora_down, which FLUX alone reads": (FLUX, (layer(f"{FLUX_BLOCK}to_q", ends=DOWN),)),
    "old diffusers": (SD, (layer(f"unet.{TO_Q}", ends=OLD),)),
    "the processors of old diffusers": (
        SD,
        (
            layer(
                "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor",
                ends=(".to_out_lora.down.weight", ".to_out_lora.up.weight"),
            ),
        ),
    ),
    "kohya": (SD, (layer(KOHYA, ends=DOWN), alpha(KOHYA))),
    "kohya's text encoder": (SD, (layer("lora_te_text_model_encoder_layers_0_mlp_fc1", 64, 16, DOWN),)),
    "kohya's second text encoder": (
        XL,
        (layer("lora_te2_text_model_encoder_layers_0_mlp_fc1", 64, 32, DOWN),),
    ),
    "kohya with SDXL's own blocks": (
        XL,
        (layer("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 64, 48, DOWN),),
    ),
    "kohya with SDXL's resnets": (
        XL,
        (layer("lora_unet_middle_block_2_out_layers_3", 64, 64, DOWN, (3, 3)),),
    ),
    "kohya with SDXL's samplers": (
        XL,
        (
            layer("lora_unet_input_blocks_2_0_op", 32, 32, DOWN, (3, 3)),
            layer("lora_unet_output_blocks_1_1_conv", 64, 64, DOWN, (3, 3)),
        ),
    ),
    "kohya outside of SDXL's blocks": (XL, (layer("lora_unet_time_embed_0", 128, 32, DOWN),)),
    "kohya with FLUX' own names": (FLUX, (layer("lora_unet_double_blocks_0_img_attn_qkv", 96, 32, DOWN),)),
    "ComfyUI's with FLUX' own names": (
        FLUX,
        (layer("diffusion_model.single_blocks.0.linear1", 224, 32, DOWN),),
    ),
    "a convolution": (SD, (layer("unet.conv_in", 32, 4, kernel=(3, 3)),)),
    "DoRA": (SD, (layer(f"unet.{TO_Q}"), {f"unet.{TO_Q}.lora_magnitude_vector": [32]})),
}


@pytest.mark.parametrize("what", GOOD)
def test_what_diffusers_loads_as_it_is_meant_is_taken_and_compared(what: str) -> None:
    class_name, layers = GOOD[what]
    found = checked(class_name, *layers)
    assert (found.trouble, found.remark) == (None, "")
    assert found.checked > 0


BAD: dict[str, tuple[str, tuple[Tensors, ...], str]] = {
    "no prefix": (SD, (layer(TO_Q),), "are named without a component"),
    "no prefix, FLUX": (FLUX, (layer("transformer_blocks.0.attn.to_q"),), "must begin with `transformer.`"),
    "peft's own": (SD, (layer(f"base_model.model.{TO_Q}"),), "named as peft does (base_model.model.)"),
    "peft's own, FLUX": (FLUX, (layer("base_model.model.transformer_blocks.0.attn.to_q"),), "as peft does"),
    "ComfyUI's": (SD, (layer(f"diffusion_model.{TO_Q}"),), "as ComfyUI does (diffusion_model.)"),
    "ComfyUI's with lora_A, FLUX": (
        FLUX,
        (layer("diffusion_model.double_blocks.0.img_attn.qkv", 96),),
        "write lora_down and lora_up",
    ),
    "ComfyUI's with diffusers' names, FLUX": (
        FLUX,
        (layer("diffusion_model.transformer_blocks.0.attn.to_q", ends=DOWN),),
        "which diffusers refuses",
    ),
    "kohya with diffusers' names, FLUX": (
        FLUX,
        (layer("lora_unet_transformer_blocks_0_attn_to_q", ends=DOWN),),
        "which diffusers refuses",
    ),
    "lora_down beside diffusers' keys": (SD, (layer(f"unet.{TO_Q}", ends=DOWN),), "write lora_A and lora_B"),
    "alphas beside diffusers' keys": (
        SD,
        (layer(f"unet.{TO_Q}"), alpha(f"unet.{TO_Q}")),
        "multiply each lora_B by alpha / rank",
    ),
    "kohya's queries of a text encoder alone": (
        SD,
        (layer("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 16, 16, DOWN),),
        "are without out_proj and mlp",
    ),
    "kohya's DoRA": (
        SD,
        (layer(KOHYA, ends=DOWN), {f"{KOHYA}.dora_scale": [32, 1]}),
        "diffusers leaves its dora_scale out",
    ),
    "another width": (
        SD,
        (layer(f"unet.{TO_Q}", 64, 64),),
        "changes a layer of 64 x 64, and the model's is 32 x 32",
    ),
    "another width, FLUX": (
        FLUX,
        (layer(f"{FLUX_BLOCK}to_q", 32, 64),),
        "is a LoRA of another model: its transformer.t",
    ),
    "another width, FLUX in kohya's form": (
        FLUX,
        (layer("lora_unet_double_blocks_0_img_attn_qkv", 96, 64, DOWN),),
        "96 x 64, and the model's is 96 x 32",
    ),
    "a FLUX control LoRA": (FLUX, (layer("transformer.x_embedder", 32, 128),), "is a LoRA of another model"),
    "a matrix for a convolution": (SD, (layer("unet.conv_in", 32, 4),), "the model's is 32 x 4 x 3 x 3"),
    "FLUX' for Stable Diffusion": (
        SD,
        (layer(f"{FLUX_BLOCK}to_q"),),
        "is a LoRA of a model with a transformer",
    ),
    "FLUX' in kohya's form": (
        SD,
        (layer("lora_unet_double_blocks_0_img_attn_qkv", 96, 32, DOWN),),
        "is a LoRA of a FLUX model",
    ),
    "Stable Diffusion's for FLUX": (
        FLUX,
        (layer(KOHYA, ends=DOWN),),
        "is a LoRA of a UNet, as Stable Diffusion's",
    ),
    "no layer of the model": (
        SD,
        (layer("unet.nowhere"),),
        "none of its 1 layers (unet.nowhere, …) is one of",
    ),
    "another tensor": (
        SD,
        (layer(f"unet.{TO_Q}"), {"bundle_emb.a": [2]}),
        "holds bundle_emb.a beside its layers",
    ),
    "LoKr": (SD, ({"lora_unet_a.lokr_w1": [2, 2]},), "is a LoKr, which is not rendered"),
    "a class without LoRAs": (
        "PixArtSigmaPipeline",
        (layer("transformer.a"),),
        "diffusers loads no LoRA into a PixArtSigmaPipeline",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_diffusers_would_leave_out_or_break_is_refused(what: str) -> None:
    class_name, layers, says = BAD[what]
    assert says in trouble(class_name, *layers)


def test_layers_that_the_model_has_not_are_told_where_others_are_its_own() -> None:
    found = checked(SD, layer(f"unet.{TO_Q}"), layer("unet.nowhere"), layer("text_encoder_2.a"))
    assert found.trouble is None
    assert found.remark == (
        "2 of its 3 layers (unet.nowhere, …) are none that diffusers loads into this model, and are left out"
    )


def test_without_the_models_layers_names_alone_decide() -> None:
    assert checked(SD, layer("unet.nowhere", 7, 7), shapes={}) == LoraVerdict()
    assert "named without a component" in trouble(SD, layer(TO_Q), shapes={})


def test_components_that_are_not_at_hand_are_not_compared() -> None:
    only_unet = {name: shape for name, shape in SD_LAYERS.items() if name.startswith("unet.")}
    te = layer("text_encoder.text_model.encoder.layers.0.mlp.fc1", 7, 7)
    assert checked(SD, layer(f"unet.{TO_Q}"), te, shapes=only_unet) == LoraVerdict(None, "", 1)


def test_names_that_diffusers_converts_in_a_way_of_its_own_are_left_to_the_worker() -> None:
    shapes = {"transformer.layers.0.attention.to_q": (32, 32)}
    found = checked("Lumina2Pipeline", layer("diffusion_model.layers.0.attention.qkv", 96), shapes=shapes)
    assert found == LoraVerdict()


def test_bare_names_are_taken_where_diffusers_reads_them() -> None:
    name = "transformer_blocks.0.attn.to_q"
    shapes = {f"transformer.{name}": (32, 32)}
    assert checked("QwenImagePipeline", layer(name, ends=DOWN), alpha(name), shapes=shapes).checked == 1
    assert "named without a component" in trouble("QwenImagePipeline", layer(name), shapes=shapes)


def test_a_class_that_is_not_known_is_left_to_the_worker() -> None:
    tensors = {"x.lora_A.weight": StoredTensor("F16", (2, 2)), "x.lora_B.weight": StoredTensor("F16", (2, 2))}
    assert check_lora(SafetensorsHeader(tensors, {}), None, {}) == LoraVerdict()
