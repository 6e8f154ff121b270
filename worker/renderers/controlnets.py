"""Loads the ControlNets that work beside a pipeline: a folder of one, or a Hugging Face id at a commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch

from jobs.errors import ModelError
from jobs.models.further_models import CONFIG
from jobs.plain_file import read_config
from worker.diffusion.compiling import to_channels_last
from worker.diffusion.painters import Controlnets
from worker.diffusion.precision import Precision
from worker.engine.renderer import FurtherModel
from worker.renderers.further_files import further_files, loading_errors
from worker.renderers.loading import Loading
from worker.renderers.memory import check_fits, free_memory, weight_bytes


def load_controlnets(
    further: Sequence[FurtherModel],
    precision: Precision,
    device: torch.device,
    *,
    channels_last: bool = False,
    loading: Loading | None = None,
) -> Controlnets:
    """The ControlNets among `further`, in their order, on the device and in the precision's format.

    Weights come from safetensors alone, and no code of a model's is run. Raises ModelError when one is not
    there, is at another revision, is no ControlNet of diffusers', or has no room on the device.
    """
    progress = Loading() if loading is None else loading
    modules: dict[str, torch.nn.Module] = {}
    revisions = []
    for one in further:
        if one.role != "controlnet":
            continue
        with loading_errors(one):
            loaded = _load(one, precision, device, progress)
        if channels_last:
            to_channels_last([loaded])
        # One that is given twice works twice.
        modules[one.model if one.model not in modules else f"{one.model} ({len(modules) + 1})"] = loaded
        revisions.append(one.revision)
    return Controlnets(modules, tuple(revisions))


def _load(one: FurtherModel, precision: Precision, device: torch.device, loading: Loading) -> torch.nn.Module:
    found = further_files(one, precision, loading)
    folder, weights = found.folder, found.weights
    name = read_config(folder / CONFIG).get("_class_name")
    kind = getattr(diffusers, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise ModelError(
            f"controlnet = {one.model}: its {CONFIG} names the class {name!r}, which diffusers "
            f"{diffusers.__version__} does not have: name a ControlNet as save_pretrained() writes it"
        )
    needed = weight_bytes(found.tensors, precision.weights)
    check_fits(one.model, needed, free_memory(device), dtype=precision.weights, device=device)
    with loading.stage("loading", one.model, size=needed):
        loader: Any = kind
        loaded = loader.from_pretrained(
            folder, torch_dtype=precision.weights, variant=weights.variant, use_safetensors=True
        )
        lacking = [name for name, weight in loaded.named_parameters() if weight.is_meta]
        if lacking:
            raise ModelError(
                f"controlnet = {one.model}: its files lack {len(lacking)} of its weights, {lacking[0]} among "
                "them: fetch it again, or save it whole"
            )
        placed: torch.nn.Module = loaded.to(device).eval()
        return placed
