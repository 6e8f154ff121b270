"""How many files, and how many bytes, one commit takes: so that no push makes more than 81 commits.

The hub counts commits a repository and an hour, and a commit of very many files runs into its time limits. So
a commit is small where there is little to push, and grows with what there is.
Source: https://huggingface.co/docs/hub/repositories-recommendations
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FILES: Final = 100
BYTES: Final = 10 << 30
MOST: Final = 40
"""Commits that end because they have their number of files, and as many because they have their bytes."""


@dataclass(slots=True)
class CommitSize:
    """What is in the commit that is being filled, and when it is full."""

    most_files: int
    most_bytes: int
    files: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, files: int, size: int) -> CommitSize:
        """An empty commit of a push of so many files with `size` bytes altogether."""
        return cls(max(FILES, -(-files // MOST)), max(BYTES, -(-size // MOST)))

    def add(self, size: int) -> bool:
        """One more file of so many bytes; returns whether the commit is full. The next one is then empty."""
        self.files += 1
        self.bytes += size
        full = self.files >= self.most_files or self.bytes >= self.most_bytes
        if full:
            self.files = self.bytes = 0
        return full
