"""Loads what an IP-Adapter sees pictures by: transformers' CLIPVisionModelWithProjection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers import CLIPVisionModelWithProjection

from jobs.errors import ModelError
from jobs.models.further_models import CONFIG
from jobs.plain_file import read_config
from worker.diffusion.ip_adapter import ImageEncoder
from worker.diffusion.precision import Precision
from worker.engine.renderer import FurtherModel
from worker.renderers.further_files import further_files, loading_errors
from worker.renderers.loading import Loading
from worker.renderers.memory import check_fits, free_memory, weight_bytes
from worker.renderers.missing_weights import missing_weights

_KIND: Final = "clip_vision_model"


def load_image_encoder(
    further: Sequence[FurtherModel],
    precision: Precision,
    device: torch.device,
    loading: Loading | None = None,
) -> ImageEncoder | None:
    """The image encoder among `further`, on the device and in the precision's format; None where there is
    none.

    Weights come from safetensors alone, and no code of a model's is run. Raises ModelError when it is not
    there, is at another revision, is none, or has no room on the device.
    """
    one = next((one for one in further if one.role == "image_encoder"), None)
    if one is None:
        return None
    with loading_errors(one):
        module = _load(one, precision, device, Loading() if loading is None else loading)
        return ImageEncoder(module, processor_of(module), one.revision)


def processor_of(module: CLIPVisionModelWithProjection) -> Any:
    """What brings pictures to an image encoder's size, as diffusers' `load_ip_adapter` makes it.

    Its class that works by Pillow, whether or not torchvision is there: pictures would be others.
    """
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = module.config.image_size
    return CLIPImageProcessorPil(size=side, crop_size=side)


def _load(
    one: FurtherModel, precision: Precision, device: torch.device, loading: Loading
) -> CLIPVisionModelWithProjection:
    found = further_files(one, precision, loading)
    config = read_config(found.folder / CONFIG)
    if config.get("model_type") != _KIND:
        raise ModelError(
            f"image_encoder = {one.model}: its {CONFIG} says model_type {config.get('model_type')!r}, not "
            f"{_KIND!r}: name the folder of a CLIPVisionModelWithProjection"
        )
    needed = weight_bytes(found.tensors, precision.weights)
    check_fits(one.model, needed, free_memory(device), dtype=precision.weights, device=device)
    with loading.stage("loading", one.model, size=needed), missing_weights() as lacking:
        loaded = CLIPVisionModelWithProjection.from_pretrained(
            found.folder,
            dtype=precision.weights,
            variant=found.weights.variant,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    if lacking:
        raise ModelError(
            f"image_encoder = {one.model}: its files lack {len(lacking)} of its weights, {lacking[0]} among "
            "them: fetch it again, or save it whole"
        )
    placed: CLIPVisionModelWithProjection = loaded.to(device).eval()
    return placed
