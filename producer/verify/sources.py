"""Where the models of an output's pictures are now: a record has their names and revisions, and no folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from jobs.adapters import controlnets_of, ip_adapter_of
from jobs.errors import ImagemillError, ManifestError, ModelError
from jobs.model_files.hub import is_commit
from jobs.models.further_models import FurtherRole, commit_and_folder, resolve_further
from jobs.models.models import BUILT_IN, is_path, name_trouble, resolve_model
from jobs.output.job_files import JobFiles
from jobs.output.output import Output
from jobs.plain_file import MAX_JSON
from jobs.request import ImageRequest
from jobs.wording import on_one_line
from producer.manifest.path_names import FOLDER, known_paths
from producer.manifest.submitted import SubmittedManifest
from producer.verify.not_comparable import NotComparable

_OF_A_FOLDER: Final = "sha256:"
"""What the revision of a folder's or a file's contents begins with; a hub's are commits."""
_OTHER_VERSION: Final = "verify with the version that rendered it (its line's rendered_versions)"


class Source(NamedTuple):
    """What a worker loads for an image."""

    model: str
    """A built-in name, a hub id or an absolute path."""
    revision: str
    further: tuple[tuple[str, str, str], ...]
    """Role, model and revision of each model beside it: `JobSpec.further_models`."""


@dataclass(slots=True)
class Sources:
    """The models of one output."""

    output: Output
    given: Sequence[Path] = ()
    """Folders and files of models, named by the caller."""
    _kept: dict[str, SubmittedManifest | None] = field(default_factory=dict)
    _found: dict[tuple[str, str, str], str | NotComparable] = field(default_factory=dict)

    def of(self, request: ImageRequest, job_id: str) -> Source:
        """What to load for an image of a job. Raises NotComparable where a model is not there."""
        model = self._model(request.model, request.revision, job_id)
        further = [
            ("controlnet", self._beside("controlnet", one.name, one.revision, job_id), one.revision)
            for one in controlnets_of(request.controlnet)
        ]
        adapter = ip_adapter_of(request.ip_adapter)
        if adapter is not None:
            encoder = self._beside("image_encoder", adapter.image_encoder, adapter.revision, job_id)
            further.append(("image_encoder", encoder, adapter.revision))
        return Source(model, request.revision, tuple(further))

    def manifest(self, job_id: str) -> SubmittedManifest | None:
        """The manifest of a submission, with the paths that are known here; None where it is not kept."""
        if job_id not in self._kept:
            try:
                kept = SubmittedManifest.parse(
                    self.output.store.read(JobFiles(self.output, job_id).manifest, MAX_JSON)
                )
                self._kept[job_id] = kept.located(known_paths(self.output.label, kept.manifest.name))
            except (OSError, ManifestError, ImagemillError, ValueError, TypeError, KeyError):
                self._kept[job_id] = None
        return self._kept[job_id]

    def _model(self, label: str, revision: str, job_id: str) -> str:
        if label in BUILT_IN and BUILT_IN[label].revision == revision:
            return label
        if is_commit(revision) and not is_path(label) and name_trouble(label) is None:
            return label
        if label in BUILT_IN and not revision.startswith(_OF_A_FOLDER):
            raise NotComparable(
                f"its model, {label} at {revision}, is not of this imagemill: {_OTHER_VERSION}"
            )

        def named(path: Path) -> str:
            return resolve_model(str(path)).revision

        try:
            return self._on_disk(("model", label, revision), job_id, named)
        except NotComparable as error:
            if label in BUILT_IN:
                raise NotComparable(f"{error}; or it is of another imagemill: {_OTHER_VERSION}") from None
            raise

    def _beside(self, role: FurtherRole, label: str, revision: str, job_id: str) -> str:
        if is_commit(commit_and_folder(revision)[0]):
            return label

        def named(path: Path) -> str:
            return resolve_further(role, str(path), None)[0].revision

        return self._on_disk((role, label, revision), job_id, named)

    def _on_disk(self, wanted: tuple[str, str, str], job_id: str, revision_of: Callable[[Path], str]) -> str:
        """The path of a model whose contents have the wanted revision. Raises NotComparable."""
        if wanted not in self._found:
            self._found[wanted] = self._look(wanted, job_id, revision_of)
        found = self._found[wanted]
        if isinstance(found, NotComparable):
            raise found
        return found

    def _look(
        self, wanted: tuple[str, str, str], job_id: str, revision_of: Callable[[Path], str]
    ) -> str | NotComparable:
        role, label, revision = wanted
        others = []
        for path in dict.fromkeys(self._candidates(label, job_id)):
            try:
                there = revision_of(path)
            except ModelError as error:
                others.append(on_one_line(str(error)))
                continue
            if there == revision:
                return str(path)
            others.append(f"{path} holds {there}")
        seen = f" ({'; '.join(others)})" if others else ""
        return NotComparable(
            f"its {role.replace('_', ' ')}, {label} at {revision}, is not found{seen}: name its folder or "
            "file with --model PATH"
        )

    def _candidates(self, label: str, job_id: str) -> Iterator[Path]:
        """Where a model of this own name may lie: as given, as its job's manifest named it, or here."""
        yield from (path.absolute() for path in self.given)
        kept = self.manifest(job_id)
        if kept is not None:
            known = known_paths(self.output.label, kept.manifest.name)
            here = Path(known[FOLDER]) if FOLDER in known else Path.cwd()
            for name in _models_named(kept):
                if not is_path(name):
                    continue
                called = name.removeprefix("./")
                path = here / os.path.expanduser(known.get(called, called))  # noqa: PTH111
                if path.name == label and path.exists():
                    yield path
        if (Path.cwd() / label).exists():
            yield Path.cwd() / label


def _models_named(kept: SubmittedManifest) -> Iterator[str]:
    """Every model that a manifest names."""
    manifest = kept.manifest
    yield manifest.model
    yield from (one.model for one in manifest.controlnet)
    if manifest.ip_adapter is not None and manifest.ip_adapter.image_encoder is not None:
        yield manifest.ip_adapter.image_encoder.model
