"""The files of a model beside a pipeline: in a folder, or of a Hugging Face id at a commit."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_cached_repo_tree, snapshot_download

from jobs.errors import ModelError
from jobs.model_files.hub import is_commit
from jobs.models.further_models import CONFIG, commit_and_folder, further_revision
from worker.diffusion.precision import Precision
from worker.engine.renderer import FurtherModel
from worker.renderers.loading import Loading
from worker.renderers.model_files import counting, other_revision
from worker.renderers.weight_files import WeightFiles, choose_weights


@dataclass(frozen=True, slots=True)
class FurtherFiles:
    """The files of a model that are loaded; they are whole."""

    folder: Path
    weights: WeightFiles
    """Their names are of a folder that is called as the role."""

    @property
    def tensors(self) -> list[Path]:
        """The files that hold weights."""
        return [self.folder / Path(name).name for name in self.weights.tensors]


def further_files(one: FurtherModel, precision: Precision, loading: Loading) -> FurtherFiles:
    """The files of a further model, fetched where they are missing.

    Raises ModelError where it is not there, is at another revision, or has no safetensors.
    """
    if Path(one.model).is_absolute():
        folder = _checked(one, loading)
        return FurtherFiles(folder, _weights(one, [file.name for file in folder.iterdir()], precision))
    return _fetched(one, precision, loading)


@contextmanager
def loading_errors(one: FurtherModel) -> Iterator[None]:
    """Turns what is raised inside, where a further model is loaded, into ModelErrors with the remedy."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        # For files that are missing, cut off or laid out otherwise, the libraries raise various errors.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{one.role} = {one.model} at {one.revision}: cannot be loaded: {reason}\n"
            "check its files, the network and HF_TOKEN; weights must be .safetensors"
        ) from error


def _weights(one: FurtherModel, names: list[str], precision: Precision) -> WeightFiles:
    return choose_weights(one.model, (f"{one.role}/{name}" for name in names), {one.role}, precision.name)


def _checked(one: FurtherModel, loading: Loading) -> Path:
    """The folder, once its contents are known to be those of its revision."""
    folder = Path(one.model)
    with loading.stage("checking", str(folder)):
        found = further_revision(folder, one.role, lambda size: loading.advance(files=1, size=size))
    if found != one.revision:
        raise other_revision(str(folder), one.revision, found)
    return folder


def _fetched(one: FurtherModel, precision: Precision, loading: Loading) -> FurtherFiles:
    """The files of a hub model's commit in the hub's cache."""
    model = one.model
    commit, folder = commit_and_folder(one.revision)
    if not is_commit(commit):
        raise ModelError(
            f"{one.role} = {model}: revision = {one.revision!r} is no commit; submit the manifest again"
        )
    below = f"{folder}/" if folder else ""
    with loading.stage("downloading", model):
        config = glob.escape(below + CONFIG)
        bars = counting(loading)
        snapshot = Path(snapshot_download(model, revision=commit, allow_patterns=[config], tqdm_class=bars))
        paths = [file.path for file in get_cached_repo_tree(model, revision=commit)]
        names = [path.removeprefix(below) for path in paths if path.startswith(below)]
        weights = _weights(one, [name for name in names if "/" not in name], precision)
        wanted = [below + Path(name).name for name in weights.names]
        if any(not (snapshot / name).is_file() for name in wanted):
            patterns = [config, *map(glob.escape, wanted)]
            snapshot_download(model, revision=commit, allow_patterns=patterns, tqdm_class=bars)
    return FurtherFiles(snapshot / folder, weights)
