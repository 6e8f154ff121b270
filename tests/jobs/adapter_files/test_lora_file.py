"""What a LoRA's file is, read from its header alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.adapter_files.lora_file import LoraFile, read_lora
from jobs.model_files.safetensors_header import HeaderError
from tests.checkpoint_files import SD, Shapes, checkpoint
from tests.lora_headers import AB, DOWN, OLD, TO_Q, alpha, layer, lora


def read(folder: Path, *layers: Shapes) -> LoraFile:
    return read_lora(lora(folder / "x.safetensors", *layers))


def refusal(file: Path) -> str:
    with pytest.raises(HeaderError) as caught:
        read_lora(file)
    return str(caught.value)


def test_the_form_is_told_by_how_layers_are_named(tmp_path: Path) -> None:
    forms = {
        f"unet.{TO_Q}": ("diffusers", AB),
        "transformer.transformer_blocks.0.attn.to_q": ("diffusers", AB),
        f"lora_unet_{TO_Q.replace('.', '_')}": ("kohya", DOWN),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": ("kohya", DOWN),
        "lora_unet_double_blocks_0_img_attn_qkv": ("kohya", DOWN),
        "diffusion_model.double_blocks.0.img_attn.qkv": ("comfyui", AB),
        f"base_model.model.{TO_Q}": ("peft", AB),
        TO_Q: ("bare", AB),
    }
    found = {name: read(tmp_path, layer(name, ends=ends)).form for name, (_form, ends) in forms.items()}
    assert found == {name: form for name, (form, _ends) in forms.items()}


def test_each_pair_of_matrices_is_one_layer_with_its_rank(tmp_path: Path) -> None:
    found = read(tmp_path, layer(f"unet.{TO_Q}"), layer("text_encoder.encoder.layers.0.mlp.fc1", 64, 16))
    assert (found.ranks, found.components) == ((2,), ("text_encoder", "unet"))
    assert found.layers[f"unet.{TO_Q}"].down == (2, 32)
    assert found.summary == "LoRA of 2 layers, rank 2, in the form diffusers"


def test_the_attention_processors_of_old_diffusers_have_layers(tmp_path: Path) -> None:
    block = TO_Q.removesuffix(".to_q")
    old = (".to_q_lora.down.weight", ".to_q_lora.up.weight")
    found = read(tmp_path, layer(f"unet.{block}.processor", ends=old), layer("unet.conv_in", ends=OLD))
    assert set(found.layers) == {f"unet.{block}.processor.to_q", "unet.conv_in"}
    assert found.pairs == {"lora.down"}


def test_alphas_and_the_magnitudes_of_a_dora_are_noticed(tmp_path: Path) -> None:
    name = f"unet.{TO_Q}"
    assert read(tmp_path, layer(name), alpha(name)).alphas
    dora = read(tmp_path, layer(name), {f"{name}.lora_magnitude_vector": [32]})
    assert dora.magnitudes
    assert dora.others == ()
    assert dora.summary.startswith("DoRA")
    assert read(tmp_path, layer("lora_unet_x", ends=DOWN), {"lora_unet_x.dora_scale": [32, 1]}).dora_scales


def test_tensors_of_no_layer_are_told_apart(tmp_path: Path) -> None:
    assert read(tmp_path, layer(f"unet.{TO_Q}"), {"bundle_emb.a": [2]}).others == ("bundle_emb.a",)


def test_other_adapters_are_refused_by_their_names(tmp_path: Path) -> None:
    for name, what in (("lokr_w1", "a LoKr"), ("hada_w1_a", "a LoHa"), ("oft_blocks", "an OFT")):
        file = checkpoint(tmp_path / "x.safetensors", {f"lora_unet_a.{name}": [2, 2]})
        assert (
            refusal(file) == f"is {what}, which is not rendered: name a LoRA, or convert it to one by LyCORIS"
        )


def test_what_is_no_lora_is_refused_with_what_it_looks_like(tmp_path: Path) -> None:
    assert "it looks like Stable Diffusion 1: name a LoRA" in refusal(
        checkpoint(tmp_path / "x.safetensors", SD)
    )
    inversion = checkpoint(tmp_path / "x.safetensors", {"emb_params": [2, 8]})
    assert "it looks like a textual inversion" in refusal(inversion)
    unknown = checkpoint(tmp_path / "x.safetensors", {"unet.a.weight": [2, 8]})
    assert "looks like nothing that is known (its first tensor is unet.a.weight)" in refusal(unknown)
    assert "holds no tensor" in refusal(checkpoint(tmp_path / "x.safetensors", {}))


def test_half_a_layer_and_matrices_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    half = checkpoint(tmp_path / "x.safetensors", {"unet.a.lora_A.weight": [2, 8]})
    assert refusal(half) == "is no whole LoRA: unet.a has no second matrix: fetch it again"
    odd = checkpoint(
        tmp_path / "x.safetensors", {"unet.a.lora_A.weight": [2, 8], "unet.a.lora_B.weight": [8, 4]}
    )
    assert "the matrices of unet.a, [2, 8] and [8, 4], do not fit each other" in refusal(odd)


def test_pickles_and_other_suffixes_are_refused_unread(tmp_path: Path) -> None:
    for name in ("x.bin", "x.pt", "x.ckpt"):
        assert "is a pickle, which runs code when it is loaded" in refusal(tmp_path / name)
    assert refusal(tmp_path / "x.gguf") == "must end in .safetensors: name such a file"


def test_broken_files_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    assert refusal(file) == "cannot be read: No such file or directory"
    file.write_bytes(b"")
    assert refusal(file) == "is empty: fetch it again, or name another file"
    file.write_bytes(b"PK\x03\x04 no safetensors at all")
    assert "is no safetensors file, or is damaged" in refusal(file)
    whole = lora(file, layer(f"unet.{TO_Q}")).read_bytes()
    file.write_bytes(whole[:-20])
    assert refusal(file).startswith(f"is cut off: {len(whole) - 20} of {len(whole)} bytes are there")
