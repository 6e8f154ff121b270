"""The textual inversions of a line: those of its list, or of `settings` or the sweep, that its texts call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.adapters import NONE
from producer.manifest.embedding_files import EmbeddingFiles
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest

_NAME = "textual_inversions"


class LineEmbeddings:
    """Makes of what lines say of textual inversions what their requests hold."""

    def __init__(self, manifest: Manifest, files: EmbeddingFiles) -> None:
        self._files = files
        self._usual: str = getattr(manifest.settings, _NAME)
        self._swept: tuple[str, ...] = manifest.sweep.swept().get(_NAME, ())
        self._negative: str = getattr(manifest.settings, "negative_prompt")  # noqa: B009

    def called(self, line: Line) -> frozenset[str]:
        """The tokens of all its lists that its prompt holds."""
        own = line.settings.get(_NAME, self._usual)
        lists = self._swept or (own,)
        return self._files.called(lists, line.prompt) if lists != (NONE,) else frozenset()

    def of(self, line: Line, swept: Mapping[str, Any], called: frozenset[str]) -> dict[str, str]:
        """The setting `textual_inversions` of a line's request with a combination of the sweep.

        called: those of its prompt. Raises ManifestError.
        """
        own = {**line.settings, **swept}
        negative = own.get("negative_prompt", self._negative)
        return {_NAME: self._files.request_text(own.get(_NAME, self._usual), [*called, negative])}
