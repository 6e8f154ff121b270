"""Loads the ControlNets that work beside a pipeline: a folder of one, or a Hugging Face id at a commit."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import get_cached_repo_tree, snapshot_download

from jobs.errors import ModelError
from jobs.further_models import CONFIG, further_revision
from jobs.hub import is_commit
from jobs.strict_json import strict_json
from worker.diffusion.compiling import to_channels_last
from worker.diffusion.painters import Controlnets
from worker.diffusion.precision import Precision
from worker.engine.renderer import FurtherModel
from worker.renderers.loading import Loading
from worker.renderers.memory import check_fits, free_memory, weight_bytes
from worker.renderers.model_files import other_revision
from worker.renderers.weight_files import choose_weights

_PART = "controlnet"


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
    named = [one for one in further if one.role == _PART]
    modules: dict[str, torch.nn.Module] = {}
    for one in named:
        try:
            loaded = _load(one, precision, device, progress)
        except ModelError:
            raise
        except Exception as error:
            # For files that are missing, cut off or laid out otherwise, the libraries raise various errors.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"controlnet = {one.model} at {one.revision}: cannot be loaded: {reason}\n"
                "check its files, the network and HF_TOKEN; weights must be .safetensors"
            ) from error
        if channels_last:
            to_channels_last([loaded])
        # One that is given twice works twice.
        modules[one.model if one.model not in modules else f"{one.model} ({len(modules) + 1})"] = loaded
    return Controlnets(modules, tuple(one.revision for one in named))


def _load(one: FurtherModel, precision: Precision, device: torch.device, loading: Loading) -> torch.nn.Module:
    local = Path(one.model).is_absolute()
    folder = (
        _checked(Path(one.model), one.revision, loading)
        if local
        else _fetched(one.model, one.revision, precision, loading)
    )
    name = strict_json((folder / CONFIG).read_bytes()).get("_class_name")
    kind = getattr(diffusers, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise ModelError(
            f"controlnet = {one.model}: its {CONFIG} names the class {name!r}, which diffusers "
            f"{diffusers.__version__} does not have: name a ControlNet as save_pretrained() writes it"
        )
    weights = choose_weights(
        one.model, (f"{_PART}/{file.name}" for file in folder.iterdir()), {_PART}, precision.name
    )
    files = [folder / name.removeprefix(f"{_PART}/") for name in weights.tensors]
    needed = weight_bytes(files, precision.weights)
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


def _checked(folder: Path, revision: str, loading: Loading) -> Path:
    """The folder, once its contents are known to be those of `revision`."""
    with loading.stage("checking", str(folder)):
        found = further_revision(folder)
    if found != revision:
        raise other_revision(str(folder), revision, found)
    return folder


def _fetched(model: str, commit: str, precision: Precision, loading: Loading) -> Path:
    """The cached folder of a hub model's commit, with its configuration and weights, fetched unless there."""
    if not is_commit(commit):
        raise ModelError(
            f"controlnet = {model}: revision = {commit!r} is no commit; submit the manifest again"
        )
    with loading.stage("downloading", model):
        folder = Path(snapshot_download(model, revision=commit, allow_patterns=[CONFIG]))
        names = [file.path for file in get_cached_repo_tree(model, revision=commit)]
        chosen = choose_weights(
            model, (f"{_PART}/{name}" for name in names if "/" not in name), {_PART}, precision.name
        )
        wanted = [name.removeprefix(f"{_PART}/") for name in chosen.names]
        if any(not (folder / name).is_file() for name in wanted):
            snapshot_download(model, revision=commit, allow_patterns=[CONFIG, *map(glob.escape, wanted)])
    return folder
