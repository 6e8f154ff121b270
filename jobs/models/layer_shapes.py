"""The shapes of a model's layers, read from the headers of its weights on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jobs.adapter_files.lora_layers import Shapes
from jobs.model_files.hub import cached_repository, is_commit
from jobs.model_files.safetensors_header import HeaderError, header_of
from jobs.models.models import BUILT_IN, ModelRef

_WEIGHT = ".weight"


def layer_shapes(model: ModelRef, components: Iterable[str]) -> Shapes:
    """The layers of the `components` of a model by component and module -> the shapes of their weights.

    Those of a component whose weights are not at hand are left out: a hub model that was not downloaded, a
    single-file checkpoint, whose layers have other names.
    """
    folder = _folder(model)
    if folder is None:
        return {}
    found = {}
    for component in components:
        for file in sorted((folder / component).glob("*.safetensors")):
            try:
                header = header_of(file)
            except HeaderError:
                continue
            for name, tensor in header.tensors.items():
                if name.endswith(_WEIGHT) and len(tensor.shape) > 1:
                    found[f"{component}.{name.removesuffix(_WEIGHT)}"] = tensor.shape
    return found


def _folder(model: ModelRef) -> Path | None:
    """The folder with the weights of a model; None where there is none on this machine."""
    if model.model in BUILT_IN:
        return None
    path = Path(model.model)
    if path.is_absolute():
        return path if path.is_dir() else None
    snapshot = cached_repository(model.model) / "snapshots" / model.revision
    return snapshot if is_commit(model.revision) and snapshot.is_dir() else None
