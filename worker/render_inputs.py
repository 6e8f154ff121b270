"""Where the files of one request are found: what an output keeps by hash, or any folder that has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from jobs.adapters import controlnets_of
from jobs.errors import RenderError
from jobs.file_hash import file_sha256
from jobs.inputs import NO_INPUTS, KeptInputs, kept_path
from jobs.models import is_path
from jobs.output.output import INPUTS
from jobs.request import PICTURES, ImageRequest
from worker.engine.renderer import FurtherModel

_ADAPTERS: Final = ("loras", "textual_inversions", "ip_adapter")
_OF_A_FOLDER: Final = "sha256:"
"""What the revision of a folder's contents begins with; a hub's are commits."""


def named_files(request: ImageRequest) -> dict[str, str]:
    """The SHA-256 of every file that a request names, and the setting that names it; latents aside."""
    pictures = {getattr(request, name): name for name in PICTURES if getattr(request, name) is not None}
    adapters = {one["sha256"]: name for name in _ADAPTERS for one in json.loads(getattr(request, name))}
    return pictures | adapters


def inputs_of(request: ImageRequest, folder: Path | None) -> KeptInputs:
    """The files of a request: in an output, in the folder where it keeps them, or anywhere below `folder`,
    whose files are then read once, for their hashes.

    Raises RenderError for files that are not there, or where no folder is given and the request names some.
    """
    wanted = named_files(request)
    if request.init_latents is None and not wanted:
        return NO_INPUTS
    if folder is None:
        what = ", ".join(dict.fromkeys(wanted.values())) if wanted else "initial latents"
        raise RenderError(f"the request has {what}: say with --inputs where the files are kept")
    kept = folder / INPUTS if (folder / INPUTS).is_dir() else folder
    lacking = {sha256 for sha256 in wanted if not kept_path(kept, sha256).is_file()}
    found = _by_hash(folder, lacking) if lacking else {}
    missing = [f"{wanted[sha256]} ({sha256})" for sha256 in wanted if sha256 in lacking - found.keys()]
    if missing:
        raise RenderError(
            f"--inputs {folder}: no file there has the contents of {', '.join(missing)}: name a folder that "
            "has them, at any depth"
        )
    return KeptInputs(kept, found)


def further_of(request: ImageRequest, controlnets: Sequence[str]) -> tuple[FurtherModel, ...]:
    """The models beside a request's own: its ControlNets, those that are folders as `controlnets` has them.

    Raises RenderError where these are not as many.
    """
    named = controlnets_of(request.controlnet)
    folders = [one.name for one in named if one.revision.startswith(_OF_A_FOLDER)]
    if len(folders) != len(controlnets):
        names = f" ({', '.join(folders)})" if folders else ""
        raise RenderError(
            f"the request has {len(folders)} ControlNets that are folders{names}: give --controlnet PATH for "
            f"each of them, in this order, not {len(controlnets)} times"
        )
    paths = iter(controlnets)
    return tuple(
        FurtherModel(
            "controlnet",
            _absolute(next(paths)) if one.revision.startswith(_OF_A_FOLDER) else one.name,
            one.revision,
        )
        for one in named
    )


def options(request: ImageRequest, model_folder: str) -> list[str]:
    """The words of a command that say where a request's files and ControlNets are; run in its output.

    model_folder: what stands for a folder that an output does not tell.
    """
    words = []
    for one in controlnets_of(request.controlnet):
        if one.revision.startswith(_OF_A_FOLDER):
            words += ["--controlnet", model_folder + Path(one.name).name]
    if request.init_latents is not None or named_files(request):
        words += ["--inputs", INPUTS]
    return words


def output_of(file: Path) -> Path | None:
    """The output that a file lies in; None where none of the folders around it keeps inputs."""
    return next((folder for folder in file.absolute().parents if (folder / INPUTS).is_dir()), None)


def _by_hash(folder: Path, wanted: set[str]) -> Mapping[str, str]:
    """The files below a folder whose hashes are wanted; those that cannot be read are passed over."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if wanted <= found.keys():
            break
        try:
            sha256 = file_sha256(path) if path.is_file() else ""
        except OSError:
            continue
        if sha256 in wanted:
            found[sha256] = str(path.absolute())
    return found


def _absolute(named: str) -> str:
    return str(Path(named).expanduser().absolute()) if is_path(named) else named
