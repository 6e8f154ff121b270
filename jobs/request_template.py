"""Entries that differ in prompt and seed alone, of which a job has millions: their image_ids and seeds.

What those hash is `ImageRequest.identity`; here what stands around the prompt and the seed is hashed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from struct import Struct
from typing import Any

from jobs.entry import Entry, seed_parts
from jobs.request import ImageRequest, settings_of

_first_32_bits = Struct(">I").unpack_from


class RequestTemplate:
    """Makes the entries with the settings of one request, whose prompt and seed do not count."""

    def __init__(self, job_name: str, request: ImageRequest) -> None:
        parts = request.identity_parts()
        self._before = sha256(parts.before_prompt.encode())
        self._between, self._after = parts.between, parts.after_seed
        seed_before, self._seed_after = seed_parts(job_name, parts)
        self._seed_before = sha256(seed_before.encode())
        self.settings = settings_of(request)

    def derived_seed(self, quoted: str, ordinal: int) -> int:
        """As `jobs.request.derived_seed` says; `quoted` is the prompt as JSON."""
        text = self._seed_before.copy()
        text.update(f"{quoted}{self._seed_after}{ordinal}]".encode())
        seed: int = _first_32_bits(text.digest())[0]
        return seed

    def image_id(self, quoted: str, seed: int) -> str:
        """As `ImageRequest.image_id` says; `quoted` is the prompt as JSON."""
        text = self._before.copy()
        text.update(f"{quoted}{self._between}{seed}{self._after}".encode())
        return text.hexdigest()[:16]

    def entry(
        self, quoted: str, seed: int, id: str | None, columns: Mapping[str, Any], seed_ordinal: int | None
    ) -> Entry:
        """The entry itself; `quoted` is the prompt as JSON."""
        return Entry(quoted, seed, self.settings, id, columns, seed_ordinal)
