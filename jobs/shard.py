"""A shard on the wire: up to `shard_size` entries as one zstd-compressed blob (the claim-check pattern).

What can be derived is left out: settings equal to the job's own, indices that follow one another, seeds
that `derived_seed` gives. 1M prompts of a real list cost about 35 MB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import zstandard

from jobs.errors import LedgerError
from jobs.request import REQUEST_FIELDS, Entry, ImageRequest, derived_seed

WIRE_VERSION = 1
_MAX_BYTES = 256 << 20
"""What a blob may unpack to: far above 10,000 prompts of 10,000 characters."""
_SETTINGS = tuple(name for name in REQUEST_FIELDS if name not in ("prompt", "seed"))
_settings_of = attrgetter(*_SETTINGS)


@dataclass(frozen=True, slots=True)
class Shard:
    """Entries and, for each, its index in the job: the number of its done bit."""

    indices: Sequence[int]
    entries: Sequence[Entry]


def encode_shard(shard: Shard, base: ImageRequest) -> bytes:
    """The shard as a blob; `base` holds the job's own settings."""
    usual = _settings_of(base)
    last, own = usual, dict[str, Any]()
    rows = []
    for entry in shard.entries:
        request, columns, ordinal = entry.request, entry.columns, entry.seed_ordinal
        settings = _settings_of(request)
        if settings != last:
            last = settings
            pairs = zip(_SETTINGS, settings, usual, strict=True)
            own = {name: value for name, value, default in pairs if value != default}
        row = own.copy()
        if request.prompt != base.prompt:
            row["prompt"] = request.prompt
        if ordinal is None:
            row["seed"] = request.seed
        elif ordinal > 0:
            row["seed_ordinal"] = ordinal
        if entry.id is not None:
            row["id"] = entry.id
        if columns:
            row["columns"] = columns
        rows.append(row)
    first = shard.indices[0]
    consecutive = list(shard.indices) == list(range(first, first + len(shard.indices)))
    head = {"v": WIRE_VERSION, "indices": first if consecutive else list(shard.indices), "rows": rows}
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))
    return zstandard.ZstdCompressor(level=3).compress(text.encode())


def decode_shard(blob: bytes, base: ImageRequest, job_name: str) -> Shard:
    """The shard that `encode_shard` packed.

    Raises LedgerError when the blob is broken or of another wire version.
    """
    try:
        head = json.loads(zstandard.ZstdDecompressor().decompress(blob, max_output_size=_MAX_BYTES))
        if head["v"] != WIRE_VERSION:
            raise LedgerError(
                f"a shard is of wire version {head['v']!r}, this imagemill reads {WIRE_VERSION}: "
                "submit with the version that the workers run"
            )
        entries = [_entry(row, base, job_name) for row in head["rows"]]
        first = head["indices"]
        indices = list(range(first, first + len(entries))) if isinstance(first, int) else first
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"a shard in Redis cannot be read ({error}): submit the manifest again") from None
    return Shard(indices, entries)


def _entry(row: dict[str, Any], base: ImageRequest, job_name: str) -> Entry:
    identifier, columns = row.pop("id", None), row.pop("columns", {})
    ordinal = None if "seed" in row else row.pop("seed_ordinal", 0)
    request = replace(base, **row)
    if ordinal is not None:
        request = replace(request, seed=derived_seed(job_name, request, ordinal))
    return Entry(request=request, id=identifier, columns=columns, seed_ordinal=ordinal)
