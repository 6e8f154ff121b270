"""Files as bytes, those that are packed (.gz, .zst) unpacked as they are read."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

from jobs.errors import ManifestError
from jobs.plain_file import open_plain
from jobs.wording import printable

_BEGINS = {
    ".gz": (b"\x1f\x8b",),
    ".zst": (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))),
}
"""The first bytes of packed files; a .zst may begin with a frame that is to be skipped."""
PACKED = tuple(_BEGINS)
"""How the names of packed files end; upper case counts too."""
_PIECE = 512
"""Packed bytes given to zstd at a time: at its densest, four bytes are a block of 128 KiB."""
_BUFFER = 1 << 16


@contextmanager
def unpacked(file: Path) -> Iterator[io.BufferedReader[Any]]:
    """The contents of a file, unpacked where its name says that it is packed.

    Raises ManifestError for a file that cannot be read or unpacked, while it is read too.
    """
    try:
        with ExitStack() as stack:
            stream: io.BufferedReader[Any] = stack.enter_context(open_plain(file))
            suffix = file.suffix.lower()
            if suffix in PACKED:
                begins = stream.peek(4)[:4]
                # A program that downloads may unpack and keep the name.
                if begins and not begins.startswith(_BEGINS[suffix]):
                    name = file.name[: -len(suffix)]
                    raise ManifestError(f"{file}: is not packed as {suffix}: rename it to {name}")
                inner: Any = gzip.GzipFile(fileobj=stream) if suffix == ".gz" else _ZstdFile(stream)
                stream = io.BufferedReader(inner, _BUFFER)
            yield stream
    except FileNotFoundError:
        raise ManifestError(f"{file}: there is no such file") from None
    except EOFError:
        raise ManifestError(
            f"{file}: is cut off, the packed data has no end: copy or download it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise ManifestError(
            f"{file}: cannot be unpacked to its end ({printable(str(error))}): it is damaged, or something "
            "follows the packed data: copy or download it again"
        ) from None
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror}") from None


class _ZstdFile(io.RawIOBase):
    """The contents of a .zst of any number of frames.

    Raises EOFError where the last frame has no end: zstandard's own reader takes that for the end.
    """

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._frame: Any = None
        self._waiting, self._contents = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._contents:
            piece = self._waiting or self._packed.read(_PIECE)
            self._waiting = b""
            if not piece:
                if self._frame is not None:
                    raise EOFError
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._contents = memoryview(self._frame.decompress(piece))
            if self._frame.eof:
                self._waiting, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._contents))
        buffer[:size] = self._contents[:size]
        self._contents = self._contents[size:]
        return size
