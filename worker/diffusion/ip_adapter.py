"""The IP-Adapter that a UNet has for a while; without one it is what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import DiffusionPipeline
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from safetensors.torch import load_file

from jobs.adapter_files.ip_adapter_file import crossing, ip_adapter_file
from jobs.adapters import IpAdapter
from jobs.errors import OutputError, RenderError
from jobs.inputs.inputs import Inputs
from jobs.model_files.safetensors_header import HeaderError, header_of

_KIND: Final = "ip_image_proj"
"""The encoder_hid_dim_type of a UNet with one."""
_PARTS: Final = ("image_proj", "ip_adapter")
_NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError)
"""What diffusers raises for a file that it does not know; of a device it is RuntimeError."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageEncoder:
    """What an IP-Adapter sees pictures by."""

    module: Any
    """transformers' CLIPVisionModelWithProjection."""
    processor: Any
    """transformers' CLIPImageProcessor of its size."""
    revision: str


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """What makes a UNet one with a certain IP-Adapter."""

    processors: Mapping[str, Any]
    """Of each attention, by diffusers' names."""
    projection: Any
    """Its encoder_hid_proj."""
    kind: str
    """Its configuration's encoder_hid_dim_type."""

    def put_on(self, unet: Any) -> None:
        """Makes a UNet this one."""
        # A projection may have attention of its own, which would be counted.
        unet.encoder_hid_proj = None
        unet.set_attn_processor(dict(self.processors))
        unet.encoder_hid_proj = self.projection
        unet.config.encoder_hid_dim_type = self.kind


class IpAdapterSwitch:
    """Puts an IP-Adapter beside a UNet's attention, and takes it away: its own processors come back."""

    def __init__(self, pipeline: DiffusionPipeline, encoder: ImageEncoder | None = None) -> None:
        """pipeline: has a UNet2DConditionModel, if it is to have an IP-Adapter. encoder: becomes a part of
        it."""
        self._pipeline, self._encoder = pipeline, encoder
        if encoder is not None:
            pipeline.register_modules(image_encoder=encoder.module, feature_extractor=encoder.processor)
        self._without: _Loaded | None = None
        """The UNet without one; None before the first."""
        self._loaded: dict[str, _Loaded] = {}
        """By the files' hashes."""
        self._refused: dict[str, str] = {}
        """Why a file cannot be loaded: every image of a job names it."""
        self.on: tuple[str, str, float] | None = None
        """SHA-256, revision of the image encoder, and scale of the one that the UNet has."""

    def put_on(self, adapter: IpAdapter | None, scale: float, inputs: Inputs) -> None:
        """Makes the UNet follow pictures by this file's weights, at this scale; None: follow none.

        inputs: where the file is. Raises RenderError for a file that is none of this model's, or where the
        image encoder that it asks for is not loaded, and what `Inputs.private_copy` raises: the UNet has none
        then.
        """
        if adapter is not None and self.on == (adapter.sha256, adapter.revision, scale):
            return
        self._put_off()
        if adapter is None:
            return
        loaded = self._loading(adapter, self._encoder_of(adapter), inputs)
        unet = self._pipeline.unet
        if self._without is None:
            kind = unet.config.encoder_hid_dim_type
            self._without = _Loaded(unet.attn_processors, unet.encoder_hid_proj, kind)
        for processor in loaded.processors.values():
            if hasattr(processor, "to_k_ip"):
                processor.scale = [scale]
        loaded.put_on(unet)
        self.on = (adapter.sha256, adapter.revision, scale)

    def forget_unused(self) -> None:
        """Drops what the UNet does not have; the last one stays where it has none."""
        kept = [*self._loaded][-1:] if self.on is None else [self.on[0]]
        self._loaded = {sha256: self._loaded[sha256] for sha256 in kept}

    def _put_off(self) -> None:
        """Makes the UNet what it was."""
        if self.on is not None and self._without is not None:
            self._without.put_on(self._pipeline.unet)
        self.on = None

    def _encoder_of(self, adapter: IpAdapter) -> ImageEncoder:
        encoder = self._encoder
        if encoder is None or encoder.revision != adapter.revision:
            loaded = "none" if encoder is None else encoder.revision
            raise RenderError(
                f"ip_adapter: {adapter.name}: the request is of image encoder {adapter.image_encoder} at "
                f"{adapter.revision}, and what is loaded is {loaded}: name that of the request"
            )
        return encoder

    def _loading(self, adapter: IpAdapter, encoder: ImageEncoder, inputs: Inputs) -> _Loaded:
        """What the file makes of the UNet; loaded now, unless it is."""
        sha256 = adapter.sha256
        if sha256 not in self._loaded and sha256 not in self._refused:
            with inputs.private_copy(sha256) as file:
                try:
                    self._loaded[sha256] = self._load(file, encoder)
                except RenderError as error:
                    self._refused[sha256] = str(error)
        if sha256 in self._refused:
            raise RenderError(f"ip_adapter: {adapter.name}: {self._refused[sha256]}")
        return self._loaded[sha256]

    def _load(self, file: Path, encoder: ImageEncoder) -> _Loaded:
        """What a file makes of the UNet, on its device and in its number format; the UNet stays.

        Raises RenderError, without the file's name. Source: `_load_ip_adapter_weights` of
        diffusers/loaders/unet.py.
        """
        unet = self._pipeline.unet
        try:
            _check(file, unet, encoder.module.config)
        except HeaderError as error:
            raise RenderError(str(error)) from None
        try:
            parts = _by_part(load_file(file))
            # Not by way of meta tensors: what a processor has from its constructor would be left there.
            processors = unet._convert_ip_adapter_attn_to_diffusers([parts], low_cpu_mem_usage=False)
            projection = unet._convert_ip_adapter_image_proj_to_diffusers(
                parts["image_proj"], low_cpu_mem_usage=False
            )
        except Exception as error:
            if isinstance(error, OSError):
                raise OutputError(f"{file}: cannot be read: {_first_line(error)}") from None
            if isinstance(error, _NOT_UNDERSTOOD) or "Error(s) in loading state_dict" in str(error):
                raise RenderError(
                    f"diffusers cannot load it ({_first_line(error)}): use another file"
                ) from None
            raise
        loaded = _Loaded(processors, MultiIPAdapterImageProjection([projection]), _KIND)
        for module in (loaded.projection, *processors.values()):
            if isinstance(module, torch.nn.Module):
                module.requires_grad_(False).eval().to(unet.device, unet.dtype)
        return loaded


def _check(file: Path, unet: Any, encoder: Any) -> None:
    """Raises HeaderError for a file that does not fit. encoder: the image encoder's configuration."""
    found = ip_adapter_file(header_of(file))
    shapes = {
        name: tuple(layer.weight.shape)
        for name, module in unet.named_modules()
        if isinstance(layer := getattr(module, "base_layer", module), torch.nn.Linear)
    }
    for trouble in (
        found.trouble(unet.config.cross_attention_dim, crossing(shapes)),
        found.encoder_trouble(encoder.projection_dim, encoder.hidden_size),
    ):
        if trouble is not None:
            raise HeaderError(trouble)


def _by_part(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """A file's tensors as diffusers takes them."""
    return {
        part: {
            name.removeprefix(f"{part}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{part}.")
        }
        for part in _PARTS
    }


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
