"""The files that the lines of a manifest name, by their hash: each is hashed once, however often named."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from jobs.errors import InputError, ManifestError
from jobs.file_hash import FileState, file_sha256, file_state
from jobs.wording import counted
from producer.manifest.picture_files import NAMES

_TABLE = """
create table files (
    path text primary key, inode int, size int, modified int, sha256 blob, transparent int, animated int
) without rowid;
create index by_sha256 on files (sha256);
"""


class InputFile(NamedTuple):
    """A file and its hash."""

    path: str
    sha256: str
    size: int
    """Bytes."""


def _database() -> sqlite3.Connection:
    # A temporary database of this process: what has no room in its cache of 2 MB is on the disk.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.executescript(_TABLE)
    return database


@dataclass(slots=True)
class InputFiles:
    """Hashes files, and remembers them as long as they do not change; memory does not grow with them."""

    _database: sqlite3.Connection = field(default_factory=_database, repr=False)

    def hashed(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A line's settings with the hash of each picture in place of its absolute path."""
        named = [name for name in NAMES if settings.get(name) is not None]
        if not named:
            return dict(settings)
        return {**settings, **{name: self.sha256(settings[name]) for name in named}}

    def sha256(self, path: str, *, picture: bool = True) -> str:
        """The SHA-256 of a file's bytes. Raises ManifestError for one that is no picture or unreadable."""
        try:
            state = file_state(Path(path))
            known = self._database.execute(
                "select sha256 from files where path = ? and inode = ? and size = ? and modified = ?",
                (path, *state),
            ).fetchone()
            if known is not None:
                return bytes(known[0]).hex()
            return self._hash(path, state, picture=picture)
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
        except InputError as error:
            raise ManifestError(f"{path}: {error}") from None

    def take(self, path: str, sha256: str) -> None:
        """Takes in an adapter's file that was hashed elsewhere. Raises ManifestError where it is gone."""
        try:
            state = file_state(Path(path))
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
        self._insert(path, state, sha256)

    def _insert(
        self, path: str, state: FileState, sha256: str, *, transparent: bool = False, animated: bool = False
    ) -> None:
        self._database.execute(
            "insert or replace into files values (?, ?, ?, ?, ?, ?, ?)",
            (path, *state, bytes.fromhex(sha256), transparent, animated),
        )

    def _hash(self, path: str, state: FileState, *, picture: bool) -> str:
        transparent = animated = False
        if picture:
            from jobs.input_picture import read_header

            header = read_header(Path(path))
            transparent, animated = header.transparent, header.frames > 1
        digest = file_sha256(Path(path))
        if file_state(Path(path)) != state:
            raise ManifestError(f"{path}: changed while it was being read: run the same command again")
        self._insert(path, state, digest, transparent=transparent, animated=animated)
        return digest

    def path_of(self, digest: str) -> str | None:
        """A file with this hash; None where no line named one."""
        found = self._database.execute(
            "select path from files where sha256 = ? order by path limit 1", (bytes.fromhex(digest),)
        ).fetchone()
        return None if found is None else str(found[0])

    def __iter__(self) -> Iterator[InputFile]:
        """One file of each hash, in the order of the hashes."""
        rows = self._database.cursor().execute("select min(path), sha256, size from files group by sha256")
        return (InputFile(path, bytes(digest).hex(), size) for path, digest, size in rows)

    def total(self) -> tuple[int, int]:
        """How many different files there are, and their bytes."""
        query = "select count(*), coalesce(sum(size), 0) from (select size from files group by sha256)"
        count, size = self._database.execute(query).fetchone()
        return count, size

    def digest(self) -> str | None:
        """One hash of all files' paths and contents; None where there are none."""
        digest, some = sha256(), False
        for path, contents in self._database.execute("select path, sha256 from files order by path"):
            some = True
            digest.update(f"{path}\0".encode(errors="surrogateescape") + bytes(contents))
        return digest.hexdigest() if some else None

    def told(self) -> Iterator[str]:
        """What to know of the pictures before they are used, a line each kind."""
        query = "select coalesce(sum(transparent), 0), coalesce(sum(animated), 0) from files"
        transparent, animated = self._database.execute(query).fetchone()
        if transparent:
            yield f"{counted(transparent, 'picture')} with transparent parts: laid on white, masks on black"
        if animated:
            yield f"{counted(animated, 'picture')} with several frames: the first is taken"
