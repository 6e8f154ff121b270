"""A single-file checkpoint (.safetensors) as a model: what it holds, and the configuration that it needs.

The file holds weights alone. Classes, sizes, tokenizers and sampler are those of a configuration, a folder in
diffusers' layout: `juggernaut.config` beside `juggernaut.safetensors`, or what the hub's cache has of the
repository that diffusers takes for such a file. Weights of components that the file does not hold are the
folder's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.errors import ModelError
from jobs.model_files.checkpoint_figures import figures
from jobs.model_files.checkpoint_kind import CheckpointKind, held_parts, kind_of, quantised
from jobs.model_files.hub import cached_commit, cached_repository, is_commit
from jobs.model_files.model_folder import (
    PICKLES,
    check_harmless,
    component_files,
    components,
    file_hash,
    pipeline_class,
)
from jobs.model_files.pipeline_folder import read_in
from jobs.model_files.safetensors_header import SUFFIX, SafetensorsHeader, read_header

_INDEX = "model_index.json"
_SETTINGS: Final = frozenset({".json", ".txt", ".model"})
"""What configurations and vocabularies of these kinds end in."""
_READ = "Stable Diffusion 1, Stable Diffusion XL and FLUX.1"


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A checkpoint and the configuration that goes with it."""

    file: Path
    kind: CheckpointKind
    header: SafetensorsHeader
    held: frozenset[str]
    """The components whose weights are the file's."""
    folder: Path
    """The configuration: a pipeline folder, which has the weights of the other components."""

    def files(self) -> list[tuple[str, Path]]:
        """Name and path of each file that loading reads, sorted by name but for the checkpoint, the first.

        The checkpoint's own name does not count. Raises OSError, ModelError.
        """
        found = {_INDEX: self.folder / _INDEX}
        for component, _library in components(self.folder):
            if component == "safety_checker":
                continue
            for file in component_files(self.folder, component):
                is_weights = file.suffix == SUFFIX or ".index." in file.name
                if (is_weights and component not in self.held) or (
                    file.suffix in _SETTINGS and not is_weights
                ):
                    found[file.relative_to(self.folder).as_posix()] = file
        return [(SUFFIX, self.file), *sorted(found.items())]

    def revision(self, hashed: Callable[[int], None] = lambda _size: None) -> str:
        """The hash, as "sha256:…", of the checkpoint and of what is read of its configuration.

        `hashed` is called with the size of each file once it is read. Raises ModelError.
        """
        total = hashlib.sha256()
        try:
            for name, file in self.files():
                total.update(f"{name}\0{file_hash(file)}\n".encode())
                hashed(file.stat().st_size)
        except OSError as error:
            raise ModelError(
                f"model = {self.file}: cannot be read: {error.strerror}: {error.filename}"
            ) from None
        return "sha256:" + total.hexdigest()


def is_single_file(path: Path) -> bool:
    """Whether a path means a single-file checkpoint; a folder of such a name is a folder."""
    return path.suffix == SUFFIX and not path.is_dir()


def file_trouble(path: Path) -> str | None:
    """What is wrong with a file that is given as a model and is no safetensors, with the remedy."""
    if path.suffix.lower() in PICKLES:
        return (
            "is a pickle, which runs code when it is loaded: convert it to .safetensors, or name a model "
            "that has such weights"
        )
    if path.is_file() and path.suffix != SUFFIX:
        return "is a file: a model is a diffusers folder or a checkpoint that ends in .safetensors"
    return None


def find_single_file(file: Path) -> SingleFile:
    """The checkpoint and its configuration, found on this machine and checked; nothing is downloaded.

    file: absolute. Raises ModelError for a file that is no checkpoint of a kind that is read, and when no
    configuration is at hand, or one that does not fit.
    """
    if not file.is_file():
        raise ModelError(f"model = {file}: there is no such file")
    header = read_header(file)
    kind = kind_of(header)
    if isinstance(kind, str):
        raise ModelError(
            f"model = {file}: looks like {kind}: single files of {_READ} are read; name one of them, or a "
            "diffusers folder"
        )
    try:
        held = held_parts(kind, header)
    except ValueError as error:
        raise ModelError(f"model = {file}: {error}: name a diffusers folder with this model") from None
    scaled = quantised(kind, header)
    if scaled is not None:
        raise ModelError(
            f"model = {file}: its weights are quantised ({scaled}), and diffusers would read them wrong: "
            "name a file of bf16, fp16, fp32 or plain fp8 weights"
        )
    found = SingleFile(file, kind, header, held, _configuration(file, kind, held))
    check_harmless(found.folder, held)
    _check_fits(found)
    return found


def _configuration(file: Path, kind: CheckpointKind, held: Collection[str]) -> Path:
    """The folder beside the file, else the snapshot in the hub's cache that the main branch was last at."""
    beside = file.with_suffix(".config")
    if beside.is_dir():
        return beside
    cached = cached_repository(kind.repository)
    commit = cached_commit(cached / "refs" / "main")
    snapshot = cached / "snapshots" / commit
    if is_commit(commit) and (snapshot / _INDEX).is_file():
        return snapshot
    wanted = [f"*{suffix}" for suffix in sorted(_SETTINGS)]
    raise ModelError(
        f"model = {file}: is a checkpoint of {kind.name}, and its configuration is not at hand: put a "
        f"diffusers folder of that model at {beside}, or fetch the one that diffusers takes: "
        + _download(kind, wanted + [f"{part}/*" for part in kind.parts if part not in held])
    )


def _download(kind: CheckpointKind, wanted: Iterable[str]) -> str:
    """The command that fetches such files of the kind's repository into the hub's cache."""
    return f"hf download {kind.repository} " + " ".join(f"--include '{pattern}'" for pattern in wanted)


def _check_fits(found: SingleFile) -> None:
    """Raises ModelError for a configuration that is not of the checkpoint's model, or lacks weights."""
    kind, folder = found.kind, found.folder
    name = pipeline_class(folder)
    if name != kind.pipeline:
        raise ModelError(
            f"model = {found.file}: is a checkpoint of {kind.name}, a {kind.pipeline}, and its configuration "
            f"{folder} is that of a {name}: put the right one there, such as {kind.repository}"
        )
    listed = {component for component, _library in components(folder)}
    for component in kind.parts:
        if component not in listed:
            raise ModelError(f"{folder / _INDEX}: names no {component}, which a {kind.pipeline} needs")
    lacking = [part for part in kind.parts if part not in found.held and not _has_weights(folder, part)]
    if lacking:
        raise ModelError(
            f"model = {found.file}: holds no {' and no '.join(lacking)}, and its configuration {folder} has "
            f"no weights of {'it' if len(lacking) == 1 else 'them'}: put them there as .safetensors: "
            + _download(kind, [f"{part}/*" for part in lacking])
        )
    compared = figures(kind, held=found.held, header=found.header, read=read_in(folder))
    for what, of_file, of_folder in compared:
        if of_file != of_folder:
            raise ModelError(
                f"model = {found.file}: {what} {of_file}, and in its configuration {folder} it is "
                f"{of_folder}: put the configuration of this model there"
            )


def _has_weights(folder: Path, component: str) -> bool:
    return any(file.suffix == SUFFIX for file in component_files(folder, component))
