"""The LoRAs of a line: its own or those of `settings` or the sweep, and those of `<lora:…>` in its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.adapters import NONE
from producer.manifest.line import Line
from producer.manifest.lora_files import LoraFiles
from producer.manifest.lora_tags import LORA_TAG
from producer.manifest.manifest import Manifest


class LineLoras:
    """Makes of what lines say of LoRAs what their requests hold."""

    def __init__(self, manifest: Manifest, files: LoraFiles) -> None:
        self._files = files
        self._usual: str = getattr(manifest.settings, "loras")  # noqa: B009
        self._syntax: str = getattr(manifest.settings, "syntax")  # noqa: B009
        self.tags = manifest.lora_folder is not None
        """Whether prompts may hold tags."""

    def untagged(self, line: Line) -> tuple[Line, str]:
        """The line with its prompt as it is encoded, and the list that its tags mean; "" where it has none.

        Raises ManifestError for tags that were not checked with the line.
        """
        if not self.tags or LORA_TAG not in line.prompt.lower():
            return line, ""
        if not self._files.reads_tags(line.settings.get("syntax", self._syntax)):
            return line, ""
        prompt, listed = self._files.untagged(line.prompt, NONE)
        return line._replace(prompt=prompt), listed

    def of(self, line: Line, swept: Mapping[str, Any], of_tags: str) -> dict[str, str]:
        """The setting `loras` of a line's request with a combination of the sweep. Raises ManifestError."""
        own = line.settings.get("loras", self._usual)
        listed = self._files.together(swept.get("loras", own), of_tags)
        return {"loras": self._files.request_text(listed)}
