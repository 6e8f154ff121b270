"""What a safetensors file of an IP-Adapter is, by the names and shapes in its header alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from jobs.safetensors_header import HeaderError, SafetensorsHeader

Projection = Literal["plain", "full", "plus"]
"""How a picture becomes tokens. plain: its embedding, four tokens; full: all states of the image encoder, as
many tokens; plus: these, through a resampler."""

_PROJECTED: Final = "image_proj."
_KEY = re.compile(r"ip_adapter\.(\d+)\.to_k_ip\.weight")
_FACES: Final = {
    "perceiver_resampler.proj_in.weight": "an IP-Adapter FaceID Plus",
    "norm.weight": "an IP-Adapter FaceID",
}


@dataclass(frozen=True, slots=True)
class IpAdapterFile:
    """What a file of an IP-Adapter holds."""

    projection: Projection
    layers: int
    """The cross attentions that it is for."""
    width: int
    """Of the text embeddings beside which its tokens stand: the denoiser's cross_attention_dim."""
    encoder_width: int
    """Of what the image encoder gives: its embedding's for plain, its states' for the others."""

    @property
    def summary(self) -> str:
        """What it is, for people."""
        kinds = {"plain": "IP-Adapter", "full": "IP-Adapter Full", "plus": "IP-Adapter Plus"}
        return f"{kinds[self.projection]} of {self.layers} layers, for texts of width {self.width}"

    def trouble(self, cross_attention_dim: int, encoder_width: int) -> str | None:
        """Why a model does not take it beside an image encoder, with the remedy; None where it does.

        encoder_width: as that of the file.
        """
        if self.width != cross_attention_dim:
            return (
                f"is an {self.summary}, and the model's texts are {cross_attention_dim} wide: name an "
                "IP-Adapter for this model"
            )
        if self.encoder_width != encoder_width:
            return (
                f"takes pictures of an image encoder of width {self.encoder_width}, and the one given has "
                f"{encoder_width}: name the image encoder that it was trained with"
            )
        return None


def ip_adapter_of(header: SafetensorsHeader) -> IpAdapterFile:
    """What the header of an IP-Adapter's file says. Raises HeaderError for that of another file.

    Source: `_convert_ip_adapter_image_proj_to_diffusers` of diffusers/loaders/unet.py.
    """
    shapes = {
        name.removeprefix(_PROJECTED): tensor.shape
        for name, tensor in header.tensors.items()
        if name.startswith(_PROJECTED)
    }
    keys = [tensor.shape for name, tensor in header.tensors.items() if _KEY.fullmatch(name)]
    if not shapes or not keys:
        raise HeaderError(
            "is no IP-Adapter: it lacks tensors image_proj.* or ip_adapter.N.to_k_ip.weight: name another "
            "file"
        )
    if any("_lora." in name for name in header.tensors):
        raise HeaderError("is an IP-Adapter FaceID, which is not painted: name an IP-Adapter of pictures")
    try:
        return _projected(shapes, keys)
    except (KeyError, IndexError):
        raise HeaderError("is no IP-Adapter that is known: name another file") from None


def _projected(shapes: dict[str, tuple[int, ...]], keys: list[tuple[int, ...]]) -> IpAdapterFile:
    width, layers = keys[0][1], len(keys)
    if "proj.weight" in shapes:
        return IpAdapterFile("plain", layers, width, shapes["proj.weight"][1])
    if "proj.3.weight" in shapes:
        return IpAdapterFile("full", layers, width, shapes["proj.0.weight"][1])
    for name, kind in _FACES.items():
        if name in shapes:
            raise HeaderError(f"is {kind}, which is not painted: name an IP-Adapter of pictures")
    return IpAdapterFile("plus", layers, width, shapes["proj_in.weight"][1])
