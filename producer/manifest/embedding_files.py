"""The textual inversions that a manifest and its rows name: found, checked against the model, hashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.adapters import NONE, TEXTUAL_INVERSIONS, textual_inversions_of
from jobs.errors import ManifestError
from jobs.model_files.model_folder import file_hash
from jobs.model_files.safetensors_header import HeaderError
from jobs.models.models import ModelRef
from jobs.models.text_encoders import text_widths, vocabulary
from jobs.pipelines.pipeline_class import WEIGHTED
from producer.manifest.adapter_files import AdapterFiles
from producer.manifest.checked_texts import CheckedTexts
from producer.manifest.written_embeddings import WrittenEmbedding, written_embeddings


@dataclass(slots=True)
class EmbeddingFiles:
    """Makes of lists of textual inversions, as a manifest writes them, what requests hold; a file is read
    once."""

    model: ModelRef
    asked: AdapterFiles
    """Takes the files that are asked for."""
    _hashes: dict[Path, str | ManifestError] = field(default_factory=dict, init=False)
    _uncalled: dict[str, None] = field(default_factory=dict, init=False)
    _called: set[str] = field(default_factory=set, init=False)
    _texts: CheckedTexts = field(init=False)

    def __post_init__(self) -> None:
        self._texts = CheckedTexts(self._checked)

    def request_text(self, written: str, texts: Sequence[str]) -> str:
        """The canonical text of a request for one of a manifest: those whose tokens its texts hold.

        Raises ManifestError that says what of the list cannot be used; it does not say where that stands.
        """
        whole = self._texts(written)
        if whole == NONE:
            return NONE
        # For manifests that name some.
        from jobs.adapter_files.embedding_file import called

        embeddings = textual_inversions_of(whole)
        wanted = set(called([one.token for one in embeddings], texts))
        self._uncalled |= dict.fromkeys(one.token for one in embeddings if one.token not in self._called)
        self._called |= wanted
        kept = [
            {"name": one.name, "token": one.token, "sha256": one.sha256}
            for one in embeddings
            if one.token in wanted
        ]
        text = TEXTUAL_INVERSIONS.plain(kept)
        if text is None:
            raise ManifestError(f"must be {TEXTUAL_INVERSIONS.words}")
        return text

    def trouble(self, written: str) -> str | None:
        """What of a list cannot be used; None where all of it can."""
        return self._texts.trouble(written)

    @property
    def uncalled(self) -> list[str]:
        """The tokens of requests' lists that none of their texts held, in order."""
        return [token for token in self._uncalled if token not in self._called]

    def called(self, written: Sequence[str], text: str) -> frozenset[str]:
        """The tokens of lists that a text holds."""
        from jobs.adapter_files.embedding_file import called

        tokens = [one.token for listed in written for one in written_embeddings(listed)]
        return frozenset(called(tokens, [text])) if tokens else frozenset()

    def _checked(self, written: str) -> str:
        if self.model.pipeline is not None and self.model.pipeline not in WEIGHTED:
            raise ManifestError(
                f"{self.model.pipeline} takes no textual inversions, only {' and '.join(sorted(WEIGHTED))} "
                "do: remove them"
            )
        from jobs.adapter_files.embedding_file import word_trouble

        words = vocabulary(self.model)
        listed = []
        for one in written_embeddings(written):
            trouble = word_trouble(one.token, words)
            if trouble is not None:
                raise ManifestError(f"{self.asked.called(one.file)}: its token {one.token} {trouble}")
            path = self.asked.absolute(one.file)
            if path not in self._hashes:
                self._hashes[path] = self._read(path, one)
            sha256 = self._hashes[path]
            if isinstance(sha256, ManifestError):
                raise sha256
            self.asked.paths[sha256] = str(path)
            listed.append({"name": path.stem, "token": one.token, "sha256": sha256})
        text = TEXTUAL_INVERSIONS.plain(listed)
        if text is None:
            raise ManifestError(f"must be {TEXTUAL_INVERSIONS.words}")
        return text

    def _read(self, path: Path, one: WrittenEmbedding) -> str | ManifestError:
        """The file's SHA-256, or why it cannot be used."""
        from jobs.adapter_files.embedding_file import read_embedding

        name = self.asked.called(one.file)
        try:
            if not path.is_file() and path.suffix == ".safetensors":
                return ManifestError(f"{name}: there is no such file: correct it, or put the file there")
            found = read_embedding(path)
            widths = text_widths(self.model)
            trouble = None if widths is None else found.trouble(widths)
            return file_hash(path) if trouble is None else ManifestError(f"{name}: {trouble}")
        except HeaderError as error:
            return ManifestError(f"{name}: {error}")
        except OSError as error:
            return ManifestError(f"{name}: cannot be read: {error.strerror}")
