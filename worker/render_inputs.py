"""Where the files of one request are found: what an output keeps by hash, or any folder that has them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence, Set
from pathlib import Path

from jobs.adapters import controlnets_of, ip_adapter_of
from jobs.errors import RenderError
from jobs.file_hash import file_sha256
from jobs.inputs.bucket_inputs import BucketInputs
from jobs.inputs.inputs import NO_INPUTS, Inputs, KeptInputs, kept_path
from jobs.output.output import INPUTS, Output
from jobs.render_command import OF_A_FOLDER, named_files
from jobs.request import ImageRequest
from worker.engine.renderer import FurtherModel


def inputs_of(request: ImageRequest, places: Sequence[Path | str]) -> Inputs:
    """The files of a request: in an output, in the folder where it keeps them, or anywhere below one of the
    `places`, whose files are then read once, for their hashes. A text is an output in a bucket.

    Raises RenderError for files that are not there, or where no place is given and the request names some.
    """
    folders = [one for one in places if isinstance(one, Path)]
    match [one for one in places if isinstance(one, str)]:
        case []:
            return _in_folders(request, folders)
        case [bucket]:
            return _in_bucket(request, bucket, folders)
        case several:
            raise RenderError(f"--inputs {', '.join(several)}: name one output in a bucket, and no other")


def _in_bucket(request: ImageRequest, location: str, folders: Sequence[Path]) -> Inputs:
    """What an output in a bucket keeps, and beside it what folders have."""
    output, wanted = Output.at(location), named_files(request)
    found: dict[str, str] = {}
    for folder in folders:
        found |= _by_hash(folder, wanted.keys() - found.keys())
    inputs = BucketInputs(output.store, KeptInputs(output.inputs, found))
    try:
        lacking = [sha for sha in wanted.keys() - found.keys() if not inputs.has(sha)]
    except OSError as error:
        raise RenderError(f"--inputs {output.label}: cannot be read ({error.strerror})") from None
    _refuse_missing(wanted, lacking, (output.label, *folders))
    return inputs


def _in_folders(request: ImageRequest, folders: Sequence[Path]) -> KeptInputs:
    wanted, latents = named_files(request), request.init_latents
    if latents is None and not wanted:
        return NO_INPUTS
    if not folders:
        what = ", ".join(dict.fromkeys(wanted.values())) if wanted else "initial latents"
        raise RenderError(f"the request has {what}: say with --inputs where the files are kept")
    kept = [folder / INPUTS if (folder / INPUTS).is_dir() else folder for folder in folders]
    # Initial latents are in one of them under a name of their own.
    home = next((one for one in kept if latents is not None and (one / f"{latents}.npy").is_file()), kept[0])
    lacking = {sha256 for sha256 in wanted if not kept_path(home, sha256).is_file()}
    found: dict[str, str] = {}
    for one in kept:
        under = {sha256: kept_path(one, sha256) for sha256 in lacking}
        found |= {sha256: str(path.absolute()) for sha256, path in under.items() if path.is_file()}
        lacking -= found.keys()
    for folder in folders:
        found |= _by_hash(folder, lacking) if lacking else {}
        lacking -= found.keys()
    _refuse_missing(wanted, lacking, folders)
    return KeptInputs(home, found)


def _refuse_missing(wanted: Mapping[str, str], lacking: Container[str], places: Sequence[Path | str]) -> None:
    missing = [f"{wanted[sha256]} ({sha256})" for sha256 in wanted if sha256 in lacking]
    if missing:
        raise RenderError(
            f"--inputs {', '.join(map(str, places))}: no file there has the contents of "
            f"{', '.join(missing)}: name a folder that has them, at any depth; --inputs may be given again"
        )


def further_of(
    request: ImageRequest, controlnets: Sequence[str], image_encoder: str | None = None
) -> tuple[FurtherModel, ...]:
    """The models beside a request's own: its ControlNets and the image encoder of its IP-Adapter, those that
    are folders as `controlnets` and `image_encoder` have them.

    Raises RenderError where these are not as many.
    """
    return (*_controlnets_of(request, controlnets), *_image_encoder_of(request, image_encoder))


def _controlnets_of(request: ImageRequest, controlnets: Sequence[str]) -> tuple[FurtherModel, ...]:
    named = controlnets_of(request.controlnet)
    folders = [one.name for one in named if one.revision.startswith(OF_A_FOLDER)]
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
            _absolute(next(paths)) if one.revision.startswith(OF_A_FOLDER) else one.name,
            one.revision,
        )
        for one in named
    )


def _image_encoder_of(request: ImageRequest, given: str | None) -> tuple[FurtherModel, ...]:
    adapter = ip_adapter_of(request.ip_adapter)
    is_folder = adapter is not None and adapter.revision.startswith(OF_A_FOLDER)
    if is_folder != (given is not None):
        what = "has no image encoder that is a folder: leave --image-encoder out"
        if adapter is not None and given is None:
            what = (
                f"has an image encoder that is a folder ({adapter.image_encoder}): give --image-encoder PATH"
            )
        raise RenderError(f"the request {what}")
    if adapter is None:
        return ()
    model = adapter.image_encoder if given is None else _absolute(given)
    return (FurtherModel("image_encoder", model, adapter.revision),)


def output_of(file: Path) -> Path | None:
    """The output that a file lies in; None where none of the folders around it keeps inputs."""
    return next((folder for folder in file.absolute().parents if (folder / INPUTS).is_dir()), None)


def _by_hash(folder: Path, wanted: Set[str]) -> Mapping[str, str]:
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
    """A folder that was named in a command, with or without ./ before it."""
    return str(Path(named).expanduser().absolute())
