"""The LoRAs of hub repositories that a manifest names, each with the commit that is used."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from jobs.errors import ManifestError, ModelError
from jobs.model_files.hub import hub_commit, is_commit
from jobs.models.models import is_path
from producer.manifest.document import Location
from producer.manifest.manifest import Manifest
from producer.manifest.paths import with_changed_lists
from producer.manifest.written_loras import WrittenLora, loras_text, written_loras


@dataclass(slots=True)
class LoraCommits:
    """Asks the hub for each repository's commit once."""

    _known: dict[tuple[str, str | None], str | ManifestError] = field(default_factory=dict, init=False)

    def pinned(self, lora: WrittenLora) -> WrittenLora:
        """The same at a commit, where it lies in a hub repository. Raises ManifestError."""
        if lora.model is None or is_path(lora.model) or is_commit(lora.revision):
            return lora
        asked = (lora.model, lora.revision)
        if asked not in self._known:
            try:
                self._known[asked] = hub_commit(*asked)
            except ModelError as error:
                self._known[asked] = ManifestError(str(error))
        commit = self._known[asked]
        if isinstance(commit, ManifestError):
            raise commit
        return replace(lora, revision=commit)


def with_lora_commits(manifest: Manifest) -> Manifest:
    """The manifest with the commit of each LoRA of the hub in place of a branch or tag.

    So an output keeps what was used, as it does of the model. Rows of prompt files stay as they are. Raises
    ManifestError that names the place of a list of which a repository is not known.
    """
    commits, wrong = LoraCommits(), list[str]()

    def pinned(path: Location, name: str, text: str) -> str:
        if name != "loras":
            return text
        try:
            return loras_text(tuple(map(commits.pinned, written_loras(text))))
        except ManifestError as error:
            wrong.append(f"{manifest.place(*path)}: {error}")
            return text

    fields = with_changed_lists(manifest, manifest.prompts, pinned)
    if wrong:
        raise ManifestError("\n".join(wrong))
    return manifest.model_copy(update=fields)
