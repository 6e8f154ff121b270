"""A tar as imagemill writes one: plain USTAR members, equal contents giving equal bytes.

It is read header by header: Python's own tarfile takes four times as long to skip a member, and accepts a tar
that was cut off between two members as complete. Source: POSIX.1-2024, pax, "ustar Interchange Format".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO, NamedTuple

from jobs.output.store import RandomAccess
from jobs.plain_file import MAX_OF_OUTPUT

_BLOCK = 512
_ZEROS = bytes(_BLOCK)


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    start: int
    """Where its contents begin, in bytes from the start of the tar."""
    size: int

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.start + _padded(self.size)


class DamagedTar(ValueError):
    """The tar is not as imagemill writes one; the message says where."""


class TarWriter:
    """Writes a tar into an open file; `close` ends it."""

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, name: str, data: bytes) -> None:
        """One more member; owner, group and time are 0, the mode is 0644."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, BytesIO(data))

    def close(self) -> None:
        """Write the end of the tar."""
        self._tar.close()


def following(end: int, size: int) -> tuple[int, int]:
    """Where a member of `size` bytes begins and ends, after what ends at byte `end`."""
    return end + _BLOCK, end + _BLOCK + _padded(size)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


class TarReader:
    """An open tar. Raises DamagedTar where it is not as `TarWriter` writes it, OSError as the system does."""

    def __init__(self, file: RandomAccess) -> None:
        self._file, self.size = file, file.size

    def check_padding(self) -> None:
        """Read the padding: there are zeros after each member's contents and after the tar's end."""
        end = 0
        for member in self.members():
            stop, end = member.start + member.size, member.end
            if any(self._contents(stop, end - stop)):
                raise DamagedTar(f"bytes were changed: other than zeros follow {member.name}")
        if self.size > end + 2 * tarfile.RECORDSIZE:
            raise DamagedTar(f"bytes were added: {self.size - end:,} follow its last member")
        while rest := self._file.read_at(end, 1 << 20):
            if any(rest):
                raise DamagedTar("bytes were changed or added: other than zeros follow its end")
            end += len(rest)
        if self.size % tarfile.RECORDSIZE:
            raise DamagedTar(f"is cut off: its {self.size:,} bytes end inside the zeros of its end")

    def members(self) -> Iterator[Member]:
        """Its files in their order, up to its end or the first that is not whole."""
        at = 0
        while (header := self._header(at)) is not None:
            kind, name, size = header
            start, end = following(at, size)
            if end > self.size:
                raise DamagedTar(f"is cut off: its {self.size:,} bytes end inside {name}")
            if size > MAX_OF_OUTPUT:
                raise DamagedTar(f"holds {name} of {size:,} bytes, more than a file of a shard has")
            if kind != b"0":
                raise DamagedTar(f"holds {name} at byte {at}, which is no plain file")
            yield Member(name, start, size)
            at = end

    def read(self, member: Member) -> bytes:
        """The member's contents."""
        return self._contents(member.start, member.size)

    def _header(self, at: int) -> tuple[bytes, str, int] | None:
        """Kind, name and size of the member whose header begins at this byte; None at the tar's end."""
        block = self._file.read_at(at, _BLOCK)
        if block == _ZEROS:
            return None
        if len(block) < _BLOCK:
            raise DamagedTar(f"is cut off: its {self.size:,} bytes end between two members")
        try:
            stated = int(block[148:156].rstrip(b"\0 "), 8)
            size = int(block[124:136].rstrip(b"\0 "), 8)
            name = block[:100].rstrip(b"\0").decode()
        except ValueError:
            stated, size, name = -1, 0, ""
        if size < 0:  # int() accepts a sign, and a negative size would lead to an endless loop
            stated = -1
        # The checksum is of the header with spaces in the checksum's own place.
        if sum(block) - sum(block[148:156]) + 8 * ord(" ") != stated:
            raise DamagedTar(f"bytes were changed: no member begins at byte {at}")
        return block[156:157], name, size

    def _contents(self, start: int, size: int) -> bytes:
        data = self._file.read_at(start, size)
        while len(data) < size:  # a signal or a network file system may give less than was asked for
            more = self._file.read_at(start + len(data), size - len(data))
            if not more:
                raise DamagedTar(f"is cut off: its {self.size:,} bytes end before byte {start + size:,}")
            data += more
        return data
