"""The header of an IP-Adapter's file says which one it is, and whether a model takes it."""

from __future__ import annotations

import pytest

from jobs.ip_adapter_file import IpAdapterFile, ip_adapter_of
from jobs.safetensors_header import HeaderError, SafetensorsHeader, StoredTensor

PLAIN = {"image_proj.proj.weight": (3072, 1024), "image_proj.norm.weight": (768,)}
FULL = {"image_proj.proj.0.weight": (1280, 1280), "image_proj.proj.3.weight": (768,)}
PLUS = {"image_proj.latents": (1, 16, 768), "image_proj.proj_in.weight": (768, 1280)}
LAYERS = {f"ip_adapter.{number}.to_k_ip.weight": (320, 768) for number in (1, 3)}


def header(tensors: dict[str, tuple[int, ...]]) -> SafetensorsHeader:
    return SafetensorsHeader({name: StoredTensor("F16", shape) for name, shape in tensors.items()}, {})


@pytest.mark.parametrize(
    ("projected", "found"),
    [
        (PLAIN, IpAdapterFile("plain", 2, 768, 1024)),
        (FULL, IpAdapterFile("full", 2, 768, 1280)),
        (PLUS, IpAdapterFile("plus", 2, 768, 1280)),
    ],
)
def test_adapters_of_pictures_are_told_apart(
    projected: dict[str, tuple[int, ...]], found: IpAdapterFile
) -> None:
    assert ip_adapter_of(header(projected | LAYERS)) == found


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "is no IP-Adapter: it lacks tensors image_proj"),
        (PLAIN, "is no IP-Adapter: it lacks tensors"),
        ({"image_proj.x": (1, 2)} | LAYERS, "is no IP-Adapter that is known: name another file"),
        ({"image_proj.norm.weight": (768,)} | LAYERS, "is an IP-Adapter FaceID, which is not painted"),
        (
            {"image_proj.perceiver_resampler.proj_in.weight": (768, 1280)} | LAYERS,
            "is an IP-Adapter FaceID Plus, which is not painted",
        ),
    ],
)
def test_the_header_of_another_file_is_refused(tensors: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        ip_adapter_of(header(tensors))


def test_a_model_or_an_image_encoder_of_another_width_does_not_take_it() -> None:
    found = ip_adapter_of(header(PLAIN | LAYERS))
    assert found.trouble(768, 1024) is None
    assert found.trouble(2048, 1024) == (
        "is an IP-Adapter of 2 layers, for texts of width 768, and the model's texts are 2048 wide: name an "
        "IP-Adapter for this model"
    )
    assert "has 1280: name the image encoder that it was trained with" in str(found.trouble(768, 1280))
