"""The header of a safetensors file: its tensors' names, formats and shapes, read without torch.

Source: the format's own page, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.errors import ModelError
from jobs.plain_file import open_plain
from jobs.strict_json import strict_json

SUFFIX: Final = ".safetensors"
_LONGEST, _LONGEST_EVER = 32_000_000, 100_000_000
"""Bytes of the longest header that is read, and of the longest in the format. A model of 100,000 tensors has
a third of the first. As Python objects they take 20 times as much at most."""


class HeaderError(ValueError):
    """A file is no safetensors file, or not all of one; the message says what is wrong, and the remedy."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What a header says of one tensor."""

    dtype: str
    """The format's own word: F32, BF16, F8_E4M3, I64, …"""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a safetensors file holds."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    """What the program that wrote it noted."""

    def has(self, prefix: str) -> bool:
        """Whether a tensor's name begins so."""
        return any(name.startswith(prefix) for name in self.tensors)


def read_header(file: Path) -> SafetensorsHeader:
    """The header of a model's file. Raises ModelError for a file that is no safetensors, or is cut off."""
    try:
        return header_of(file)
    except HeaderError as error:
        raise ModelError(f"model = {file}: {error}") from None


def header_of(file: Path) -> SafetensorsHeader:
    """The header of a safetensors file. Raises HeaderError, whose message does not name the file."""
    try:
        with open_plain(file) as opened:
            length = int.from_bytes(opened.read(8), "little")
            text = opened.read(length) if length <= _LONGEST else b""
            size = opened.seek(0, 2)
    except OSError as error:
        raise HeaderError(f"cannot be read: {error.strerror}") from None
    if _LONGEST < length <= min(_LONGEST_EVER, size - 8):
        raise HeaderError(
            f"has a header of {length:,} bytes, and at most {_LONGEST:,} are read: shorten its metadata"
        )
    if size == 0:
        raise HeaderError("is empty: fetch it again, or name another file")
    if 8 < size < 8 + length <= _LONGEST:
        raise _cut_off(size, 8 + length)
    try:
        entries = strict_json(text)
        metadata = {str(name): str(value) for name, value in entries.pop("__metadata__", {}).items()}
        tensors = {
            name: StoredTensor(str(entry["dtype"]), tuple(map(int, entry["shape"])))
            for name, entry in entries.items()
        }
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError):
        raise HeaderError(
            "is no safetensors file, or is damaged: fetch it again, or name another file"
        ) from None
    if size < end:
        raise _cut_off(size, end)
    return SafetensorsHeader(tensors, metadata)


def _cut_off(size: int, wanted: int) -> HeaderError:
    return HeaderError(f"is cut off: {size:,} of {wanted:,} bytes are there, or more: fetch it again")
