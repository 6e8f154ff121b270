"""The header of an IP-Adapter's file says which one it is, and whether a model takes it."""

from __future__ import annotations

import pytest

from jobs.adapter_files.ip_adapter_file import IpAdapterFile, crossing, ip_adapter_file
from jobs.model_files.safetensors_header import HeaderError, SafetensorsHeader, StoredTensor

Shapes = dict[str, tuple[int, ...]]
PLAIN: Shapes = {"image_proj.proj.weight": (3072, 1024), "image_proj.norm.weight": (768,)}
FULL: Shapes = {"image_proj.proj.0.weight": (1280, 1280), "image_proj.proj.3.weight": (768,)}
PLUS: Shapes = {"image_proj.latents": (1, 16, 768), "image_proj.proj_in.weight": (768, 1280)}


def layers(*numbers: int, width: int = 768) -> Shapes:
    return {f"ip_adapter.{number}.to_{part}_ip.weight": (320, width) for number in numbers for part in "kv"}


LAYERS = layers(1, 3)


def header(tensors: Shapes) -> SafetensorsHeader:
    return SafetensorsHeader({name: StoredTensor("F16", shape) for name, shape in tensors.items()}, {})


@pytest.mark.parametrize(
    ("projected", "found"),
    [
        (PLAIN, IpAdapterFile("plain", 768, 1024, (320, 320))),
        (FULL, IpAdapterFile("full", 768, 1280, (320, 320))),
        (PLUS, IpAdapterFile("plus", 768, 1280, (320, 320))),
    ],
)
def test_adapters_of_pictures_are_told_apart(projected: Shapes, found: IpAdapterFile) -> None:
    assert ip_adapter_file(header(projected | LAYERS)) == found


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "is no IP-Adapter: it lacks tensors image_proj"),
        (PLAIN, "is no IP-Adapter: it lacks tensors"),
        ({"image_proj.x": (1, 2)} | LAYERS, "is no IP-Adapter that is known: name another file"),
        (PLAIN | layers(1, 2), "is no IP-Adapter that is known"),
        (PLAIN | layers(1) | layers(3, width=640), "is no IP-Adapter that is known"),
        (PLAIN | {"ip_adapter.1.to_k_ip.weight": (320, 768)}, "is no IP-Adapter that is known"),
        ({"image_proj.norm.weight": (768,)} | LAYERS, "is an IP-Adapter FaceID, which is not painted"),
        (
            {"image_proj.perceiver_resampler.proj_in.weight": (768, 1280)} | LAYERS,
            "is an IP-Adapter FaceID Plus, which is not painted",
        ),
        (
            PLAIN | LAYERS | {"ip_adapter.0.to_q_lora.down.weight": (128, 320)},
            "is an IP-Adapter FaceID, which is not painted",
        ),
    ],
)
def test_the_header_of_another_file_is_refused(tensors: Shapes, message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        ip_adapter_file(header(tensors))


def test_a_model_or_an_image_encoder_of_another_width_does_not_take_it() -> None:
    found = ip_adapter_file(header(PLAIN | LAYERS))
    assert found.trouble(768, ()) is found.trouble(768, (320, 320)) is None
    is_one = "is an IP-Adapter of 2 layers, for texts of width 768, and "
    named = ": name an IP-Adapter for this model"
    assert found.trouble(2048, ()) == f"{is_one}the model's texts are 2048 wide{named}"
    assert found.trouble(768, (320,)) == f"{is_one}the model has 1{named}"
    assert (
        found.trouble(768, (320, 640)) == f"{is_one}one of them is 320 wide where the model's is 640{named}"
    )
    assert found.encoder_trouble(1024, 1280) is None
    assert "has 1280: name the image encoder that it was trained with" in str(
        found.encoder_trouble(1280, 1664)
    )


def test_cross_attentions_are_counted_down_then_up_then_in_the_middle() -> None:
    shapes: Shapes = {
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (4, 9),
        "unet.up_blocks.1.attentions.10.transformer_blocks.0.attn2.to_k": (3, 9),
        "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_k": (2, 9),
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k": (8, 8),
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v": (7, 9),
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (1, 9),
    }
    assert crossing(shapes) == (1, 2, 3, 4)
