"""The settings whose lists name files, and how the paths of each are changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from producer.manifest.written_embeddings import with_embedding_files
from producer.manifest.written_loras import with_lora_files

WITH_FILES: Final[Mapping[str, Callable[[str, Callable[[str], str]], str]]] = {
    "loras": with_lora_files,
    "textual_inversions": with_embedding_files,
}
"""The setting's name -> what gives a canonical text with other paths."""
