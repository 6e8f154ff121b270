"""An IP-Adapter as a manifest names it: resolved to a file and an image encoder's weights. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from jobs.adapter_files.ip_adapter_file import IpAdapterFile, crossing, ip_adapter_file
from jobs.adapter_files.lora_file import name_trouble
from jobs.errors import ModelError
from jobs.model_files.hub import hub_commit, hub_file, is_commit
from jobs.model_files.model_folder import file_hash
from jobs.model_files.pipeline_folder import Read
from jobs.model_files.safetensors_header import HeaderError, header_of
from jobs.models.further_models import CONFIG, denoiser_config, resolve_further
from jobs.models.layer_shapes import layer_shapes
from jobs.models.models import IpAdapterRef, ModelRef, PartOf, is_path
from jobs.pipelines.pipeline_class import IP_ADAPTED

_ENCODER: Final = "clip_vision_model"
"""The model_type of transformers' CLIPVisionModelWithProjection."""
_USUAL: Final = {"projection_dim": 512, "hidden_size": 768}
"""What transformers takes where a configuration does not say it."""


def resolve_ip_adapter(
    weights: PartOf, encoder: PartOf, beside: ModelRef, sha256: str | None = None
) -> IpAdapterRef:
    """The exact file and the exact image encoder that a manifest means, for pictures by the model `beside`.

    sha256: what the file must hold; None: whatever it holds. Raises ModelError that begins with `ip_adapter`,
    `image_encoder` or `revision`.
    """
    told = f"ip_adapter = {weights}"
    pipeline = beside.pipeline_class
    if pipeline is not None and pipeline.name not in IP_ADAPTED:
        takers = " and ".join(sorted(IP_ADAPTED))
        raise ModelError(
            f"{told}: {beside.label} is a {pipeline.name}, which takes none here, only {takers} do: remove it"
        )
    file, commit = _file(weights, told)
    try:
        found = ip_adapter_file(header_of(file))
        trouble = _trouble(found, beside)
        if trouble is not None:
            raise HeaderError(trouble)
        digest = file_hash(file)
        if sha256 is not None and digest != sha256:
            raise HeaderError(f"holds {digest}, not sha256 = {sha256}: name the file that was meant")
    except HeaderError as error:
        raise ModelError(f"{told}: {error}") from None
    except OSError as error:
        raise ModelError(f"{told}: cannot be read: {error.strerror}") from None
    same = commit is not None and (encoder.model, encoder.revision) == (weights.model, weights.revision)
    named, read = resolve_further(
        "image_encoder", encoder.model, commit if same else encoder.revision, encoder.part
    )
    _check_encoder(f"image_encoder = {encoder}", found, read)
    return IpAdapterRef(str(file), file.stem, digest, commit, named)


def _file(weights: PartOf, told: str) -> tuple[Path, str | None]:
    """The file, fetched if it is not in the hub's cache, and its commit. Raises ModelError."""
    name = weights.part if weights.part else weights.model
    trouble = name_trouble(Path(name))
    if trouble is not None:
        raise ModelError(f"{told}: {trouble}")
    if is_path(weights.model):
        # Path.expanduser raises for an unknown user.
        file = Path(os.path.expanduser(weights.model)) / weights.part  # noqa: PTH111
        if not file.is_file():
            raise ModelError(f"{told}: there is no such file: correct it, or put the file there")
        return file, None
    revision = weights.revision
    try:
        commit = str(revision) if is_commit(revision) else hub_commit(weights.model, revision)
        return hub_file(weights.model, name, commit), commit
    except ModelError as error:
        raise ModelError(f"{told}: {str(error).removeprefix(f'model = {weights.model}: ')}") from None


def _trouble(found: IpAdapterFile, beside: ModelRef) -> str | None:
    """Why the model does not take the file, as far as its configuration and weights are at hand."""
    width = denoiser_config(beside).get("cross_attention_dim")
    if type(width) is not int:
        return None  # a worker finds out
    return found.trouble(width, crossing(layer_shapes(beside, ["unet"])))


def _check_encoder(told: str, found: IpAdapterFile, read: Read) -> None:
    """Raises ModelError for what is no image encoder, or one of another width than the file takes."""
    try:
        config: Any = read(CONFIG)
    except KeyError:
        return  # a worker finds out
    if not isinstance(config, dict) or config.get("model_type") != _ENCODER:
        kind = config.get("model_type") if isinstance(config, dict) else None
        raise ModelError(
            f"{told}: its {CONFIG} says model_type {kind!r}, not {_ENCODER!r}: name the folder of a "
            "CLIPVisionModelWithProjection"
        )
    widths = [config.get(name, usual) for name, usual in _USUAL.items()]
    trouble = found.encoder_trouble(*widths)
    if trouble is not None:
        raise ModelError(f"ip_adapter: {trouble} ({told})")
