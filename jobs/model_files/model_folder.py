"""A pipeline folder: the hash of its files, whether loading it can run code, and the form of its latents."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.errors import ModelError
from jobs.model_files.config_figures import MOST_FIGURE, latent_scale, whole_figure
from jobs.plain_file import open_plain, read_config, read_plain
from jobs.user_cache import cache_folder, remember

_DIGEST = re.compile(r"[0-9a-f]{64}")
PARTS_OF_DIFFUSERS = frozenset(
    {
        "bria_fibo2", "deepfloyd_if", "flux", "flux2", "glm_image", "ideogram4", "joyimage", "kandinsky",
        "kolors", "latent_diffusion", "marigold", "stable_diffusion", "visualcloze",
    }
)  # fmt: skip
"""Modules of diffusers.pipelines that define components: an index names them in the place of a library."""
_LIBRARIES = PARTS_OF_DIFFUSERS | {"diffusers", "transformers"}
"""Libraries whose classes a pipeline may use."""
PICKLES = frozenset({".bin", ".ckpt", ".pkl", ".pt", ".pth"})
_INDEX = "model_index.json"
_NOT_LOADED = "safety_checker"
_FIRST_CLASS = "StableDiffusionPipeline"
"""The class that was rendered before all others: the revisions of its folders follow the first rule."""
_FIRST_SUFFIXES = frozenset({".json", ".txt", ".safetensors", ".bin", ".model"})
_READ_WHOLE = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".bpe", ".vocab"})
"""Configurations, vocabularies and templates, of which the libraries read all at once."""
_MAX_SETTINGS = 256 << 20
_CACHE_FROM = 1 << 20
_MAX_DIGEST = 4096
_SETTLED_NS = 2_000_000_000


def check_harmless(folder: Path, unread: Collection[str] = ()) -> None:
    """Raise ModelError if loading the pipeline folder could run code that came with it.

    That is the case for weights that are only pickles, for Python files and configurations that name them
    (`auto_map`), also in folders within a component's, and for components of libraries other than diffusers
    and transformers. A component without a folder is refused too: its files would be those of the pipeline's.
    What is neither a file nor a folder is refused as well: the libraries that load a model would wait for a
    pipe, and read a device without end. `unread`: components whose weights are not those in the folder.
    """
    try:
        deep = _is_deep(folder)
        for component, library in components(folder):
            if str(library) not in _LIBRARIES:
                raise ModelError(
                    f"{folder / _INDEX}: {component} is of {library!r}: code that comes with a "
                    "model is not run; name a pipeline of diffusers' and transformers' own classes"
                )
            if deep and component != _NOT_LOADED and not (folder / component).is_dir():
                raise ModelError(
                    f"{folder / component}: is missing: a pipeline has a folder for each component, as "
                    "save_pretrained() writes it"
                )
            files = _files(folder / component, deep)
            for file in files:
                _refuse_odd(file)
                if file.suffix == ".py" or (file.name.endswith("config.json") and _names_code(file)):
                    raise ModelError(
                        f"{file}: is or names code that comes with the model, which is not run: remove it if "
                        "the model loads without it, or name another model"
                    )
            suffixes = {file.suffix for file in files}
            is_read = component != _NOT_LOADED and component not in unread
            if is_read and suffixes & PICKLES and ".safetensors" not in suffixes:
                raise ModelError(
                    f"{folder / component}: its weights are pickles, which run code when they are loaded: "
                    "save the model as .safetensors (save_pretrained does), or name one that has them"
                )
    except OSError as error:
        raise _unreadable(folder, error) from None


def _refuse_odd(file: Path) -> None:
    """Raises ModelError for a pipe, a socket or a device, or a link to one, and for settings without end."""
    with suppress(FileNotFoundError):  # a link that leads nowhere: nothing is read
        found = file.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise ModelError(f"{file}: is no plain file: remove it, or save the model again")
        if file.suffix in _READ_WHOLE and found.st_size > _MAX_SETTINGS:
            raise ModelError(
                f"{file}: is larger than {_MAX_SETTINGS >> 20} MiB, as no file of this kind is: save the "
                "model again"
            )


def folder_revision(path: Path, hashed: Callable[[int], None] = lambda _size: None) -> str:
    """The hash, as "sha256:…", of the files that loading a pipeline folder reads: their names and contents.

    These are model_index.json and what lies in the folders of its components: all that is not hidden and no
    .md. Of a StableDiffusionPipeline they are its configs, vocabularies and weights alone, by their suffixes.
    `hashed` is called with the size of each file once it is read. Hashes of large files are cached in the
    user's cache folder by (real path, size, times, inode).
    Raises ModelError if the folder is not a pipeline or cannot be read.
    """
    total = hashlib.sha256()
    try:
        for name, file in pipeline_files(path):
            total.update(f"{name}\0{file_hash(file)}\n".encode())
            hashed(file.stat().st_size)
    except OSError as error:
        raise _unreadable(path, error) from None
    return "sha256:" + total.hexdigest()


def _unreadable(folder: Path, error: OSError) -> ModelError:
    return ModelError(f"model = {folder}: cannot be read: {error.strerror}: {error.filename}")


def pipeline_files(folder: Path) -> list[tuple[str, Path]]:
    """Relative name and path of each file that a folder's revision counts, sorted by name. Raises OSError."""
    found = {_INDEX: folder / _INDEX}
    deep = _is_deep(folder)
    for component, _library in components(folder):
        if deep and component == _NOT_LOADED:
            continue
        for file in _files(folder / component, deep):
            if deep or (file.suffix in _FIRST_SUFFIXES and file.is_file()):
                found[file.relative_to(folder).as_posix()] = file
    return sorted(found.items())


def _is_deep(folder: Path) -> bool:
    """Whether all files below a component's folder count, whatever their suffix.

    They do not for the first class: an output keeps its image_ids only while its model keeps its revision.
    """
    return bool(_index(folder).get("_class_name") != _FIRST_CLASS)


def components(folder: Path) -> Iterator[tuple[str, object]]:
    """Name and library of each component that model_index.json lists."""
    for component, loader in _index(folder).items():
        if not (isinstance(loader, list) and len(loader) == 2 and loader[1] is not None):
            continue
        if not any(isinstance(word, str) for word in loader):  # two numbers are a setting of the pipeline's
            continue
        if "/" in component or component in (".", ".."):
            raise ModelError(f"{folder / _INDEX}: {component!r} is not the name of a component")
        yield component, loader[0]


def _index(folder: Path) -> dict[str, Any]:
    """What model_index.json holds."""
    if not folder.is_dir():
        raise ModelError(f"model = {folder}: there is no such folder")
    file = folder / _INDEX
    if not file.is_file():
        raise ModelError(
            f"model = {folder}: holds no model_index.json: name a diffusers pipeline folder,"
            " as save_pretrained() writes it"
        )
    index = _read_json(file)
    if not isinstance(index, dict):
        raise ModelError(f"{file}: must hold a JSON object, as save_pretrained() writes it")
    return index


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _files(folder: Path, deep: bool) -> list[Path]:
    """The files of a component that loading may read; if `deep`, those in folders below it too."""
    if not deep:
        return _listed(folder)
    found = []
    for path in _listed(folder):
        if path.name.startswith(".") or path.suffix == ".md":
            continue
        if path.is_symlink() and path.is_dir():
            raise ModelError(f"{path}: is a link to a folder: put the folder itself there")
        found += _files(path, deep) if path.is_dir() else [path]
    return found


def component_files(folder: Path, component: str) -> list[Path]:
    """The files below a component's folder, but for hidden ones and .md, sorted."""
    return _files(folder / component, deep=True)


def _names_code(file: Path) -> bool:
    config = _read_json(file)
    return isinstance(config, dict) and "auto_map" in config


def _read_json(path: Path) -> Any:
    try:
        return read_config(path)
    except ValueError as error:
        raise ModelError(f"{path}: is not JSON ({error}): save the model again") from None


def file_hash(path: Path) -> str:
    """The hex SHA-256 of a file's contents; that of a large file from the user's cache if that is safe.

    Raises OSError.
    """
    real = path.resolve()
    before = real.stat()
    if before.st_size < _CACHE_FROM:
        return hashlib.sha256(read_plain(real, _CACHE_FROM)).hexdigest()
    key = json.dumps([str(real), before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino])
    cached = cache_folder("hashes") / hashlib.sha256(key.encode()).hexdigest()
    try:
        known = read_plain(cached, _MAX_DIGEST).decode("ascii")
    except (OSError, UnicodeDecodeError):
        known = ""
    if _DIGEST.fullmatch(known):
        return known
    with open_plain(real) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    # A file that was just written may change again within the clock's resolution and look the same.
    settled = time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _SETTLED_NS
    if settled and (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
        remember(cached, digest)  # without a cache (a read-only home), hashes take longer
    return digest


def pipeline_class(folder: Path) -> str | None:
    """diffusers' class of a pipeline, as its model_index.json names it; None where that is not at hand."""
    try:
        index = _read_json(folder / "model_index.json")
    except (OSError, ModelError):
        return None
    name = index.get("_class_name") if isinstance(index, dict) else None
    return name if isinstance(name, str) else None


def default_size(folder: Path) -> tuple[int, int] | None:
    """Height and width in pixels of a pipeline that is asked for neither, by diffusers' own rule: the UNet's
    `sample_size` times the VAE's scale. None where the configs do not say or are not there.

    Source: diffusers' StableDiffusionPipeline, which takes a size below 64 from before 0.9.0 for 64.
    """
    try:
        unet = _read_json(folder / "unet" / "config.json")
        _channels, scale = latent_form(folder)
        size, version = unet["sample_size"], unet.get("_diffusers_version")
        before_0_9 = version is not None and tuple(map(int, version.split(".")[:2])) < (0, 9)
        if type(size) is int:
            size = [max(size, 64) if before_0_9 else size] * 2
        height, width = size
        if scale is None or type(height) is not int or type(width) is not int:
            return None
        if max(abs(height), abs(width)) > MOST_FIGURE:
            return None
        return height * scale, width * scale
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def latent_form(folder: Path) -> tuple[int | None, int | None]:
    """Channels and scale of a pipeline's latents, from the configs of its UNet and VAE if it has both."""
    try:
        unet = _read_json(folder / "unet" / "config.json")
        vae = _read_json(folder / "vae" / "config.json")
        return whole_figure(unet["in_channels"]), latent_scale(vae["block_out_channels"])
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        raise _unreadable(folder, error) from None
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            f"model = {folder}: its unet/config.json has no in_channels, or its vae/config.json no"
            " block_out_channels: name a Stable Diffusion pipeline"
        ) from None
