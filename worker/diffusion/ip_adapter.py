"""The IP-Adapter that a UNet has for a while; without one it is what it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from jobs.errors import RenderError
from jobs.ip_adapter_file import ip_adapter_of
from jobs.safetensors_header import HeaderError, header_of

_PARTS = ("image_proj", "ip_adapter")


class IpAdapterSwitch:
    """Puts an IP-Adapter beside a UNet's attention, and takes it away: its own processors come back."""

    def __init__(self, unet: Any) -> None:
        """unet: a UNet2DConditionModel."""
        self._unet = unet
        self._processors: Mapping[str, Any] | None = None
        """Those of the UNet without one; None while it has none."""
        self._projection, self._type = unet.encoder_hid_proj, unet.config.encoder_hid_dim_type

    def put_on(self, file: Path, encoder: Any) -> None:
        """Makes the UNet follow pictures by this file's weights.

        encoder: the image encoder, a CLIPVisionModelWithProjection. Raises RenderError for a file that is
        none of this UNet's: it is then without any.
        """
        self.put_off()
        try:
            found = ip_adapter_of(header_of(file))
        except HeaderError as error:
            raise RenderError(f"ip_adapter: {error}") from None
        plain = found.projection == "plain"
        encoder_width = encoder.config.projection_dim if plain else encoder.config.hidden_size
        own = self._unet.attn_processors
        crossing = sum(not name.endswith("attn1.processor") for name in own)
        trouble = found.trouble(self._unet.config.cross_attention_dim, encoder_width)
        if trouble is None and found.layers != crossing:
            trouble = (
                f"is an {found.summary}, and the model has {crossing}: name an IP-Adapter for this model"
            )
        if trouble is not None:
            raise RenderError(f"ip_adapter: {trouble}")
        self._processors = own
        try:
            # Not by way of meta tensors: what a processor has from its constructor would be left there.
            self._unet._load_ip_adapter_weights([_by_part(load_file(file))], low_cpu_mem_usage=False)
        except BaseException:
            self.put_off()
            raise

    def put_off(self) -> None:
        """Makes the UNet what it was."""
        if self._processors is None:
            return
        self._unet.set_attn_processor(dict(self._processors))
        self._unet.encoder_hid_proj = self._projection
        self._unet.config.encoder_hid_dim_type = self._type
        self._processors = None


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
