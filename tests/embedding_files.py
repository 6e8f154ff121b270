"""Files of textual inversions with random vectors, and where requests find them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from jobs.errors import InputError


@dataclass(frozen=True, slots=True)
class FolderInputs:
    """Files in a folder, by the hashes of what they hold."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, contents: bytes) -> str:
        """Writes a file, called by its SHA-256, and returns that."""
        sha256 = hashlib.sha256(contents).hexdigest()
        self.files[sha256] = self.folder / sha256
        self.files[sha256].write_bytes(contents)
        return sha256

    def latents(self, sha256: str) -> np.ndarray:
        raise InputError(f"{sha256}: is no file of latents")

    def contents(self, sha256: str) -> bytes:
        with self.private_copy(sha256) as copy:
            return copy.read_bytes()

    @contextmanager
    def private_copy(self, sha256: str) -> Iterator[Path]:
        if sha256 not in self.files:
            raise InputError(f"{sha256}: is missing")
        yield self.files[sha256]


def vectors(count: int, width: int, seed: int = 1) -> torch.Tensor:
    """Vectors as large as those of a trained model."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 0.5


def embedding(**tensors: torch.Tensor) -> bytes:
    """A file's contents."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def listed(*embeddings: tuple[str, str]) -> str:
    """Token and SHA-256 of each, as a request has them."""
    each = [{"name": token, "token": token, "sha256": sha256} for token, sha256 in embeddings]
    return json.dumps(each, separators=(",", ":"), ensure_ascii=False)
