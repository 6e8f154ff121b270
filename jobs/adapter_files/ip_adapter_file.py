"""What a safetensors file of an IP-Adapter is, by the names and shapes in its header alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from jobs.model_files.safetensors_header import HeaderError, SafetensorsHeader

Projection = Literal["plain", "full", "plus"]
"""How a picture becomes tokens. plain: its embedding, four tokens; full: all states of the image encoder, as
many tokens; plus: these, through a resampler."""

_PROJECTED: Final = "image_proj."
_LAYER = re.compile(r"ip_adapter\.(\d+)\.to_(k|v)_ip\.weight")
_FACES: Final = {
    "perceiver_resampler.proj_in.weight": "an IP-Adapter FaceID Plus",
    "norm.weight": "an IP-Adapter FaceID",
}
_CROSSING = re.compile(r".*(down_blocks|up_blocks|mid_block)(\..+)\.attn2\.to_k")
"""The names of a UNet's layers that look at texts."""
_BLOCKS: Final = ("down_blocks", "up_blocks", "mid_block")
"""The parts of a UNet in the order in which a file numbers its layers."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IpAdapterFile:
    """What a file of an IP-Adapter holds."""

    projection: Projection
    width: int
    """Of the text embeddings beside which its tokens stand: the denoiser's cross_attention_dim."""
    encoder_width: int
    """Of what the image encoder gives: its embedding's for plain, its states' for the others."""
    inner: Shape
    """The widths of the cross attentions that it is for, in their order."""

    @property
    def summary(self) -> str:
        """What it is, for people."""
        kinds = {"plain": "IP-Adapter", "full": "IP-Adapter Full", "plus": "IP-Adapter Plus"}
        return f"{kinds[self.projection]} of {len(self.inner)} layers, for texts of width {self.width}"

    def trouble(self, width: int, inner: Sequence[int]) -> str | None:
        """Why a model does not take it, with the remedy; None where it does.

        width: of its texts. inner: as that of the file; empty where it is not known.
        """
        if self.width != width:
            what = f"the model's texts are {width} wide"
        elif not inner or tuple(inner) == self.inner:
            return None
        elif len(inner) != len(self.inner):
            what = f"the model has {len(inner)}"
        else:
            ours, theirs = next(pair for pair in zip(self.inner, inner, strict=True) if pair[0] != pair[1])
            what = f"one of them is {ours} wide where the model's is {theirs}"
        return f"is an {self.summary}, and {what}: name an IP-Adapter for this model"

    def encoder_trouble(self, projection_dim: int, hidden_size: int) -> str | None:
        """Why it does not take what an image encoder of these widths gives, with the remedy; None where it
        does."""
        given = projection_dim if self.projection == "plain" else hidden_size
        if given == self.encoder_width:
            return None
        return (
            f"takes pictures of an image encoder of width {self.encoder_width}, and the one given has "
            f"{given}: name the image encoder that it was trained with"
        )


def ip_adapter_file(header: SafetensorsHeader) -> IpAdapterFile:
    """What the header of an IP-Adapter's file says. Raises HeaderError for that of another file.

    Source: `_convert_ip_adapter_image_proj_to_diffusers` of diffusers/loaders/unet.py.
    """
    projected = {
        name.removeprefix(_PROJECTED): tensor.shape
        for name, tensor in header.tensors.items()
        if name.startswith(_PROJECTED)
    }
    layers: dict[int, dict[str, Shape]] = {}
    for name, tensor in header.tensors.items():
        if (found := _LAYER.fullmatch(name)) is not None:
            layers.setdefault(int(found[1]), {})[found[2]] = tensor.shape
    if not projected or not layers:
        raise HeaderError(
            "is no IP-Adapter: it lacks tensors image_proj.* or ip_adapter.N.to_k_ip.weight: name another "
            "file"
        )
    if any("_lora." in name for name in header.tensors):
        raise HeaderError("is an IP-Adapter FaceID, which is not painted: name an IP-Adapter of pictures")
    try:
        return _read(projected, layers)
    except HeaderError:
        raise
    except (KeyError, IndexError, ValueError):
        raise HeaderError("is no IP-Adapter that is known: name another file") from None


def crossing(shapes: Mapping[str, Shape]) -> Shape:
    """The widths of a UNet's cross attentions, in the order in which a file numbers them.

    shapes: of the weights of its layers, by their names, with whatever stands before `down_blocks`.
    """
    found = [(matched, shape) for name, shape in shapes.items() if (matched := _CROSSING.fullmatch(name))]
    placed = [
        (_BLOCKS.index(matched[1]), [int(digits) for digits in re.findall(r"\d+", matched[2])], shape[0])
        for matched, shape in found
    ]
    return tuple(inner for _block, _numbers, inner in sorted(placed))


def _read(projected: Mapping[str, Shape], layers: Mapping[int, Mapping[str, Shape]]) -> IpAdapterFile:
    numbers = sorted(layers)
    keys = [layers[number]["k"] for number in numbers]
    # Those between are of self attentions, which have no weights here.
    odd = numbers == list(range(1, 2 * len(numbers), 2))
    if not odd or keys != [layers[number]["v"] for number in numbers] or len({one[1] for one in keys}) > 1:
        raise ValueError
    width, inner = keys[0][1], tuple(one[0] for one in keys)
    if "proj.weight" in projected:
        return IpAdapterFile("plain", width, projected["proj.weight"][1], inner)
    if "proj.3.weight" in projected:
        return IpAdapterFile("full", width, projected["proj.0.weight"][1], inner)
    for name, kind in _FACES.items():
        if name in projected:
            raise HeaderError(f"is {kind}, which is not painted: name an IP-Adapter of pictures")
    return IpAdapterFile("plus", width, projected["proj_in.weight"][1], inner)
