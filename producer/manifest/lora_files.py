"""The LoRAs that a manifest and its rows name: found, checked against the model, hashed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.adapter_files.lora_loaders import LOADERS
from jobs.adapters import LORAS
from jobs.errors import ManifestError, ModelError
from jobs.model_files.hub import hub_file
from jobs.model_files.model_folder import file_hash
from jobs.model_files.safetensors_header import HeaderError
from jobs.models.models import ModelRef, is_path
from jobs.wording import shortened
from producer.manifest.adapter_files import AdapterFiles
from producer.manifest.checked_texts import CheckedTexts
from producer.manifest.lora_folder import LoraFolder
from producer.manifest.lora_tags import TagError, Untagged, untagged
from producer.manifest.manifest import Manifest
from producer.manifest.pinned_loras import LoraCommits
from producer.manifest.written_loras import WrittenLora, loras_text, written_loras

if TYPE_CHECKING:
    from jobs.adapter_files.lora_layers import Shapes


@dataclass(frozen=True, slots=True)
class _Found:
    """One file that may be used."""

    name: str
    sha256: str


@dataclass(slots=True)
class LoraFiles:
    """Makes of lists of LoRAs, as a manifest writes them, what requests hold; each file is read once."""

    model: ModelRef
    folder: LoraFolder | None
    """`lora_folder`; None where the manifest has none."""
    asked: AdapterFiles
    """Takes the files that are asked for."""
    _commits: LoraCommits = field(default_factory=LoraCommits, init=False)
    _paths: dict[WrittenLora, Path | ManifestError] = field(default_factory=dict, init=False)
    _found: dict[Path, _Found | ManifestError] = field(default_factory=dict, init=False)
    _texts: CheckedTexts = field(init=False)
    _shapes: Shapes | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._texts = CheckedTexts(self._checked)

    @classmethod
    def of(cls, manifest: Manifest, model: ModelRef, asked: AdapterFiles) -> LoraFiles:
        """For the LoRAs of a manifest."""
        folder = None if manifest.lora_folder is None else LoraFolder(Path(manifest.lora_folder))
        return cls(model, folder, asked)

    def reads_tags(self, syntax: str) -> bool:
        """Whether `<lora:ink:0.8>` is one in prompts of this syntax."""
        return self.folder is not None and syntax == "a1111"

    def request_text(self, written: str) -> str:
        """The canonical text of a request for one of a manifest. Raises ManifestError that says what of it
        cannot be used; it does not say where that stands."""
        return self._texts(written)

    def trouble(self, written: str) -> str | None:
        """What of a list cannot be used; None where all of it can."""
        return self._texts.trouble(written)

    def untagged(self, prompt: str, written: str) -> tuple[str, str]:
        """A prompt without its `<lora:…>`, and the list `written` with what those say after it.

        Raises ManifestError.
        """
        try:
            found: Untagged = untagged(prompt)
        except TagError as error:
            raise ManifestError(str(error)) from None
        if not found.tags:
            return prompt, written
        of_tags = tuple(WrittenLora(name=tag.name, scale=tag.scale) for tag in found.tags)
        return found.prompt, self.together(written, loras_text(of_tags))

    @staticmethod
    def together(written: str, of_tags: str) -> str:
        """Two lists as one; the second may be empty."""
        return loras_text((*written_loras(written), *written_loras(of_tags))) if of_tags else written

    def _checked(self, written: str) -> str:
        # What reads and checks files is for manifests that name some.
        from jobs.adapter_files.lora_check import class_trouble

        trouble = class_trouble(self.model.pipeline)
        if trouble is not None:
            raise ManifestError(trouble)
        listed, seen = [], dict[str, WrittenLora]()
        for one in written_loras(written):
            path = self._path(replace(one, scale=1.0))
            if path not in self._found:
                self._found[path] = self._read(path, one)
            found = self._found[path]
            if isinstance(found, ManifestError):
                raise found
            if found.sha256 in seen:
                called, before = (self.asked.called(str(lora)) for lora in (one, seen[found.sha256]))
                twice = "is in the list twice" if called == before else f"has the contents of {before}"
                raise ManifestError(f"{called}: {twice}: remove one, and give the other both scales")
            seen[found.sha256] = one
            self.asked.paths[found.sha256] = str(path)
            listed.append({"name": found.name, "sha256": found.sha256, "scale": one.scale})
        text = LORAS.plain(listed)
        if text is None:
            raise ManifestError(f"must be {LORAS.words}")
        return text

    def _path(self, one: WrittenLora) -> Path:
        """Where a LoRA's file lies, absolute. Raises ManifestError, for an equal one again."""
        if one not in self._paths:
            try:
                self._paths[one] = self._looked_for(one)
            except ManifestError as error:
                self._paths[one] = error
        path = self._paths[one]
        if isinstance(path, ManifestError):
            raise path
        return path

    def _looked_for(self, one: WrittenLora) -> Path:
        if one.name is not None:
            if self.folder is None:
                raise ManifestError(
                    f"{shortened(one.name)}: names of LoRAs need `lora_folder: FOLDER` in the manifest: add "
                    "it, or name a file"
                )
            return self.folder.find(one.name)
        if one.file is not None:
            return self.asked.absolute(one.file)
        return self._in_model(one)

    def _in_model(self, one: WrittenLora) -> Path:
        """The file in a folder or a hub repository, fetched if it is not in the hub's cache."""
        from jobs.adapter_files.lora_file import name_trouble

        model, name = str(one.model), str(one.weight_name)
        trouble = name_trouble(Path(name))
        if trouble is not None:
            raise ManifestError(f"{shortened(name)}: {trouble}")
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ManifestError(f"weight_name = {shortened(name)}: must lie in its model: correct it")
        if is_path(model):
            if one.revision is not None:
                raise ManifestError(
                    f"{self.asked.called(str(one))}: is in a folder, which has no revision: remove it"
                )
            return self.asked.absolute(model) / name
        try:
            return hub_file(model, name, str(self._commits.pinned(one).revision))
        except ModelError as error:
            raise ManifestError(str(error)) from None

    def _read(self, path: Path, one: WrittenLora) -> _Found | ManifestError:
        """The file, or why it cannot be used."""
        from jobs.adapter_files.lora_check import check_read
        from jobs.adapter_files.lora_file import name_trouble, read_lora
        from jobs.models.layer_shapes import layer_shapes

        called = self.asked.called(str(one))
        try:
            if not path.is_file() and name_trouble(path) is None:
                return ManifestError(f"{called}: there is no such file: correct it, or put the file there")
            lora = read_lora(path)
        except HeaderError as error:
            return ManifestError(f"{called}: {error}")
        except OSError as error:
            return ManifestError(f"{called}: cannot be read: {error.strerror}")
        if self._shapes is None:
            loader = LOADERS.get(str(self.model.pipeline))
            self._shapes = {} if loader is None else layer_shapes(self.model, loader.components)
        verdict = check_read(lora, self.model.pipeline, self._shapes)
        if verdict.trouble is not None:
            return ManifestError(f"{called}: {verdict.trouble}")
        if verdict.remark:
            self.asked.remarks[f"{called}: {verdict.remark}"] = None
        try:
            sha256 = file_hash(path)
        except OSError as error:
            return ManifestError(f"{called}: cannot be read: {error.strerror}")
        return _Found(path.stem, sha256)
