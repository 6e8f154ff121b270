"""The names of models beside another resolved to exact weights: ControlNets, image encoders. No torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from jobs.errors import ModelError
from jobs.model_files.hub import HubFiles, hub_commit, is_commit
from jobs.model_files.model_folder import PICKLES, file_hash
from jobs.model_files.pipeline_folder import Read, read_in
from jobs.model_files.safetensors_header import SUFFIX
from jobs.model_files.single_file import find_single_file, is_single_file
from jobs.models.models import BUILT_IN, FurtherRef, ModelRef, is_path
from jobs.pipelines.pipeline_trouble import either
from jobs.pipelines.pipelines import controlnet_classes
from jobs.plain_file import MAX_CONFIG, read_plain

CONFIG: Final = "config.json"
FurtherRole = Literal["controlnet", "image_encoder"]
"""What a further model is to a pipeline."""
_CALLED: Final[Mapping[FurtherRole, str]] = {
    "controlnet": "a ControlNet",
    "image_encoder": "an image encoder",
}
_WEIGHTS: Final = (".safetensors", ".safetensors.index.json")
_SAME: Final = ("cross_attention_dim", "joint_attention_dim", "pooled_projection_dim", "block_out_channels")
"""What a ControlNet's configuration has in common with its denoiser's."""


def resolve_controlnet(model: str, revision: str | None, beside: ModelRef) -> FurtherRef:
    """The exact weights that a ControlNet's `model` means, for pictures by the model `beside`.

    model: a folder in diffusers' layout (config.json and .safetensors), or a hub id. Raises ModelError that
    begins with `revision` or `controlnet`.
    """
    if (trouble := _file_trouble(model)) is not None:
        raise ModelError(f"controlnet = {model}: {trouble}")
    found, read = resolve_further("controlnet", model, revision)
    _check(found, read, beside)
    return found


def _file_trouble(model: str) -> str | None:
    """Why a name that looks like a file's names no ControlNet, with the remedy; None for others."""
    suffix = Path(model).suffix.lower()
    # Path.expanduser raises for an unknown user.
    if Path(os.path.expanduser(model)).is_dir():  # noqa: PTH111
        return None
    if suffix in PICKLES:
        return (
            "is a pickle, which runs code when it is loaded: name a ControlNet with .safetensors, as a "
            "folder or a hub id"
        )
    if suffix == SUFFIX:
        return (
            "is a single file, and ControlNets are read from folders: name one as save_pretrained() writes "
            "it; diffusers' ControlNetModel.from_single_file(FILE).save_pretrained(FOLDER) makes one"
        )
    return None


def resolve_further(
    role: FurtherRole, model: str, revision: str | None, folder_in: str = ""
) -> tuple[FurtherRef, Read]:
    """The exact weights that `model` means, and what reads its configurations.

    model: a folder with config.json and .safetensors, or a hub id. folder_in: the folder in the repository.
    revision: of a folder, "sha256:…" of its contents. Raises ModelError that begins with `revision` or the
    role.
    """
    if is_path(model):
        # Path.expanduser raises for an unknown user.
        folder = (Path(os.path.expanduser(model)) / folder_in).resolve()  # noqa: PTH111
        found = FurtherRef(str(folder), folder.name, further_revision(folder, role))
        if revision is not None and revision != found.revision:
            raise ModelError(
                f"revision = {revision}: {folder} holds {found.revision}: remove `revision`, or name the "
                f"{_CALLED[role].partition(' ')[2]} that was meant"
            )
        return found, read_in(folder)
    try:
        commit = revision if revision is not None and is_commit(revision) else hub_commit(model, revision)
    except ModelError as error:
        raise ModelError(str(error).replace("model = ", f"{role} = ", 1)) from None
    files = HubFiles(model, commit)
    if not folder_in:
        return FurtherRef(model, model, commit), files
    return FurtherRef(model, model, f"{commit}:{folder_in}"), lambda name: files(f"{folder_in}/{name}")


def commit_and_folder(revision: str) -> tuple[str, str]:
    """The commit and the folder of a hub model's revision; "" is the repository itself."""
    commit, _colon, folder = revision.partition(":")
    return commit, folder


def further_revision(
    folder: Path, role: FurtherRole = "controlnet", hashed: Callable[[int], None] = lambda _size: None
) -> str:
    """The hash, as "sha256:…", of what loading a model's folder reads: config.json and its .safetensors.

    `hashed` is called with the size of each file once it is read.
    Raises ModelError if the folder is none of diffusers' or transformers' models, or cannot be read.
    """
    told = f"{role} = {folder}"
    try:
        if not folder.is_dir():
            raise ModelError(f"{told}: there is no such folder: correct it, or put {_CALLED[role]} there")
        if not (folder / CONFIG).is_file():
            raise ModelError(
                f"{told}: holds no {CONFIG}: name the folder of {_CALLED[role]} as save_pretrained() writes "
                "it"
            )
        files = [one for one in sorted(folder.iterdir()) if one.name.endswith(_WEIGHTS)]
        if not any(one.suffix == ".safetensors" for one in files):
            raise ModelError(
                f"{told}: holds no .safetensors: weights in other files may be pickles, which run code when "
                "they are loaded; save it again"
            )
        read_plain(folder / CONFIG, MAX_CONFIG)  # one without end is not hashed
        total = hashlib.sha256()
        for file in (folder / CONFIG, *files):
            total.update(f"{file.name}\0{file_hash(file)}\n".encode())
            hashed(file.stat().st_size)
    except OSError as error:
        raise ModelError(f"{told}: cannot be read: {error.strerror}: {error.filename}") from None
    return "sha256:" + total.hexdigest()


def _check(controlnet: FurtherRef, read: Read, beside: ModelRef) -> None:
    """Raises ModelError for a ControlNet of a class that the model does not take, or of another width."""
    pipeline = beside.pipeline_class
    if pipeline is None:
        return  # a worker finds out
    taken = controlnet_classes(pipeline)
    told = f"controlnet = {controlnet.label}"
    if not taken:
        raise ModelError(f"{told}: {beside.label} is a {pipeline.name}, which takes none here: remove it")
    try:
        config = read(CONFIG)
        name = config["_class_name"]
    except (KeyError, TypeError):
        return
    if name not in taken:
        raise ModelError(
            f"{told}: is a {name}, and {beside.label}, a {pipeline.name}, takes {either(taken)}: name one"
        )
    _check_width(told, config, beside)


def _check_width(told: str, config: Any, beside: ModelRef) -> None:
    """Raises ModelError where a ControlNet's configuration says another width than the denoiser's."""
    own = denoiser_config(beside)
    for key in _SAME:
        theirs, ours = config.get(key), own.get(key)
        if theirs is not None and ours is not None and _plain(theirs) != _plain(ours):
            raise ModelError(
                f"{told}: has {key} = {theirs}, and {beside.label} {ours}: it was made for another model"
            )


def denoiser_config(model: ModelRef) -> dict[str, Any]:
    """The configuration of a model's denoiser; empty where it is not at hand."""
    if model.model in BUILT_IN:
        return {}
    read: Read
    if not Path(model.model).is_absolute():
        read = HubFiles(model.model, model.revision)
    elif is_single_file(Path(model.model)):
        read = read_in(find_single_file(Path(model.model)).folder)
    else:
        read = read_in(Path(model.model))
    for component in ("unet", "transformer"):
        try:
            config = read(f"{component}/{CONFIG}")
        except KeyError:
            continue
        return config if isinstance(config, dict) else {}
    return {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
