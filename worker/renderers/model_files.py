"""Where a model's files are on this machine: a folder that was checked, or a commit of the hub, fetched."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError
from huggingface_hub.utils import tqdm

from jobs.errors import ModelError
from jobs.model_files.hub import is_commit
from jobs.model_files.model_folder import PICKLES, components, folder_revision, pipeline_files
from worker.renderers.loading import Loading
from worker.renderers.weight_files import WeightFiles, choose_weights

log = logging.getLogger(__name__)
_INDEX, _CARD = "model_index.json", "README.md"
_SETTINGS = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".bpe", ".vocab"})
"""What configs, vocabularies and chat templates end in; other files of a repository are not fetched."""


def checked_folder(folder: Path, revision: str, loading: Loading) -> Path:
    """The folder, once its contents are known to be those of `revision`. Raises ModelError."""
    if not (folder / _INDEX).is_file():
        raise ModelError(
            f"model = {folder}: this worker finds no model_index.json there: name a folder in diffusers' "
            "layout, under the same path on every worker"
        )
    sizes = [file.stat().st_size for _name, file in pipeline_files(folder)]
    with loading.stage("checking", str(folder), files=len(sizes), size=sum(sizes)):
        found = folder_revision(folder, lambda size: loading.advance(files=1, size=size))
    if found != revision:
        raise other_revision(str(folder), revision, found)
    return folder


def hub_index(model: str, commit: str, loading: Loading) -> Path:
    """The cached folder of a hub model's commit, with its model_index.json, fetched unless it is there."""
    if commit.startswith("sha256:"):
        raise ModelError(
            f"model = {model}: revision = {commit!r} is that of a folder or a single file: "
            "name it with --model"
        )
    if not is_commit(commit):
        raise ModelError(f"model = {model}: revision = {commit!r} is no commit; submit the manifest again")
    with loading.stage("asking the hub for", model):
        return Path(
            snapshot_download(model, revision=commit, allow_patterns=[_INDEX], tqdm_class=counting(Loading()))
        )


def fetch(model: str, commit: str, folder: Path, *, variant: str | None, loading: Loading) -> WeightFiles:
    """Downloads what loading needs into the cached `folder` of `hub_index`; returns the weights among it.

    Nothing is asked of the hub when all is there. `variant`: as `preferred` of `choose_weights`.
    """
    listed = {name for name, _library in components(folder)} - {"safety_checker"}
    sizes = _sizes(model, commit, folder)
    weights = choose_weights(model, sizes, listed, variant)
    _refuse_pickles(model, sizes, listed, weights)
    wanted = [_INDEX, *weights.names, *(name for name in sizes if _is_settings(name, listed))]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        # The model's card says its licence, which the dataset's card names.
        missing += [name for name in (_CARD,) if name in sizes and not (folder / name).is_file()]
        with loading.stage("downloading", model, files=len(wanted), size=sum(sizes[name] for name in wanted)):
            there = [name for name in wanted if name not in missing]
            loading.advance(files=len(there), size=sum(sizes[name] for name in there))
            snapshot_download(
                model,
                revision=commit,
                # A pattern that is one file's name.
                allow_patterns=[glob.escape(name) for name in missing],
                tqdm_class=counting(loading),
            )
    return weights


def counting(loading: Loading) -> type[tqdm]:
    """The class of bars that show nothing, and count files and bytes as `loading` has them."""

    class Counting(tqdm):  # type: ignore[misc]
        def __init__(self, *given: Any, **options: Any) -> None:
            # Bytes that came from the network and bytes that reached the disk have a bar each.
            self._is_bytes = options.get("unit") == "B"
            self._is_twice = str(options.get("name", "")).endswith(".transfer")
            super().__init__(*given, **options | {"disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if n is not None and not self._is_twice:
                loading.advance(**{"size" if self._is_bytes else "files": int(n)})
            return super().update(n)  # type: ignore[no-any-return]

    return Counting


def local_weights(folder: Path, variant: str | None) -> WeightFiles:
    """The weights of a pipeline folder that are loaded; `variant`: as `preferred` of `choose_weights`."""
    listed = {name for name, _library in components(folder)} - {"safety_checker"}
    return choose_weights(str(folder), (name for name, _file in pipeline_files(folder)), listed, variant)


def other_revision(model: str, wanted: str, found: str) -> ModelError:
    """The error of a worker that holds another revision than the job's."""
    return ModelError(
        f"model = {model}: the job asks for revision {wanted}, this worker holds {found}; "
        "give every worker the same files, or submit the manifest again"
    )


def _sizes(model: str, commit: str, folder: Path) -> dict[str, int]:
    """Name and size of each file of a commit; of those in the cache where the hub could never be asked."""
    try:
        return {file.path: file.size for file in get_cached_repo_tree(model, revision=commit)}
    except CachedRepoTreeNotFoundError:
        log.warning(
            "model = %s: the cache does not say which files the hub has, and the hub is out of reach: what "
            "is in the cache is loaded, and a worker that has the list may load weights of another variant",
            model,
        )
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


def _refuse_pickles(model: str, names: Iterable[str], listed: Set[str], weights: WeightFiles) -> None:
    """Raises ModelError for a component whose weights are pickles alone, before anything is downloaded."""
    sound = {name.split("/")[0] for name in weights.names}
    for name in names:
        component = name.split("/")[0]
        if "/" in name and component in listed - sound and Path(name).suffix in PICKLES:
            raise ModelError(
                f"model = {model}: {component}: its weights are pickles, which run code when they are "
                "loaded: name a model that has them as .safetensors"
            )


def _is_settings(name: str, listed: Set[str]) -> bool:
    """Whether a file of a component is a config, a vocabulary or a template."""
    path = Path(name)
    return path.parts[0] in listed and path.suffix in _SETTINGS and ".index." not in path.name
