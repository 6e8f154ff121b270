"""The settings that name files: what a manifest writes of them, and how the paths in lists are changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from jobs.bounds import Values
from jobs.request import PICTURES
from producer.manifest.written_embeddings import WrittenEmbeddings, with_embedding_files
from producer.manifest.written_loras import WrittenLoras, with_lora_files
from producer.manifest.written_pictures import WrittenPicture

WRITTEN: Final[Mapping[str, Values]] = {
    "loras": WrittenLoras(),
    "textual_inversions": WrittenEmbeddings(),
    **dict.fromkeys(PICTURES, WrittenPicture()),
}
"""The setting's name -> what a manifest and a row write. Of initial latents a prompt alone names the file."""
WITH_FILES: Final[Mapping[str, Callable[[str, Callable[[str], str]], str]]] = {
    "loras": with_lora_files,
    "textual_inversions": with_embedding_files,
}
"""Those of them that are lists -> what gives a canonical text with other paths."""
