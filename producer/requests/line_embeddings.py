"""The textual inversions of a line: those of its list, or of `settings` or the sweep, that its texts call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from jobs.adapters import NONE
from jobs.arguments import arguments_of
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
        self.everywhere = self._usual != NONE or bool(self._swept)
        """Whether lines have a list that say nothing of it."""
        self._arguments: str = getattr(manifest.settings, "arguments")  # noqa: B009
        self._negative: str = getattr(manifest.settings, "negative_prompt")  # noqa: B009

    def called(self, line: Line) -> frozenset[str]:
        """The tokens of all its lists that its prompt holds."""
        own = line.settings.get(_NAME, self._usual)
        lists = self._swept or (own,)
        return self._files.called(lists, line.prompt) if lists != (NONE,) else frozenset()

    def of(self, line: Line, swept: Mapping[str, Any], called: Collection[str]) -> dict[str, str]:
        """The setting `textual_inversions` of a line's request with a combination of the sweep.

        swept: with the whole of its arguments, if some are swept. called: those of its prompt. Raises
        ManifestError.
        """
        own = {**line.settings, **swept}
        listed = own.get(_NAME, self._usual)
        if listed == NONE:
            return {_NAME: NONE}
        # Further texts of a pipeline's call, such as prompt_2.
        arguments = arguments_of(own.get("arguments", self._arguments)).values()
        texts = [own.get("negative_prompt", self._negative), *(one for one in arguments if type(one) is str)]
        return {_NAME: self._files.request_text(listed, [*called, *texts])}
