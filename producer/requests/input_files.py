"""The files that the lines of a manifest name, by their hash: each is hashed once, however often named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.errors import ManifestError
from jobs.file_hash import FileState, file_sha256, file_state
from producer.manifest.picture_files import NAMES

if TYPE_CHECKING:
    import sqlite3

_TABLE = """
create table files (
    path text primary key, inode int, size int, modified int, sha256 blob, wanted int
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
    # Few submissions name files.
    import sqlite3

    # A temporary database of this process: what has no room in its cache of 2 MB is on the disk.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.executescript(_TABLE)
    return database


@dataclass(slots=True)
class InputFiles:
    """Hashes files, and remembers them as long as they do not change; memory does not grow with them."""

    _opened: sqlite3.Connection | None = field(default=None, init=False, repr=False)

    @property
    def some(self) -> bool:
        """Whether a file was named."""
        return self._opened is not None

    @property
    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = _database()
        return self._opened

    def hashed(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A line's settings with the hash of each picture in place of its absolute path."""
        named = [name for name in NAMES if settings.get(name) is not None]
        if not named:
            return dict(settings)
        return {**settings, **{name: self.sha256(settings[name]) for name in named}}

    def sha256(self, path: str) -> str:
        """The SHA-256 of a file's bytes. Raises ManifestError for one that cannot be read."""
        try:
            state = file_state(Path(path))
            known = self._database.execute(
                "select sha256 from files where path = ? and inode = ? and size = ? and modified = ?",
                (path, *state),
            ).fetchone()
            if known is not None:
                return bytes(known[0]).hex()
            return self._hash(path, state)
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None

    def take(self, path: str, sha256: str) -> None:
        """Takes in an adapter's file that was hashed elsewhere. Raises ManifestError where it is gone."""
        try:
            state = file_state(Path(path))
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
        self._insert(path, state, sha256)

    def _insert(self, path: str, state: FileState, sha256: str) -> None:
        self._database.execute(
            "insert or replace into files values (?, ?, ?, ?, ?, 0)",
            (path, *state, bytes.fromhex(sha256)),
        )

    def _hash(self, path: str, state: FileState) -> str:
        digest = file_sha256(Path(path))
        if file_state(Path(path)) != state:
            raise ManifestError(f"{path}: changed while it was being read: run the same command again")
        self._insert(path, state, digest)
        return digest

    def want(self, hashes: Iterable[str]) -> None:
        """Marks files as those of images that are to be rendered."""
        if self.some:
            self._database.executemany(
                "update files set wanted = 1 where sha256 = ?", ((bytes.fromhex(one),) for one in hashes)
            )

    def want_none(self) -> None:
        """Takes all marks back."""
        if self.some:
            self._database.execute("update files set wanted = 0")

    def path_of(self, digest: str) -> str | None:
        """A file with this hash; None where no line named one."""
        if not self.some:
            return None
        found = self._database.execute(
            "select path from files where sha256 = ? order by path limit 1", (bytes.fromhex(digest),)
        ).fetchone()
        return None if found is None else str(found[0])

    def wanted(self) -> Iterator[InputFile]:
        """One file of each hash that is marked, in the order of the hashes."""
        if not self.some:
            return iter(())
        query = "select min(path), sha256, size from files where wanted = 1 group by sha256 order by sha256"
        rows = self._database.cursor().execute(query)
        return (InputFile(path, bytes(digest).hex(), size) for path, digest, size in rows)

    def total(self) -> tuple[int, int]:
        """How many different files are marked, and their bytes."""
        if not self.some:
            return 0, 0
        each = "select size from files where wanted = 1 group by sha256"
        query = f"select count(*), coalesce(sum(size), 0) from ({each})"
        count, size = self._database.execute(query).fetchone()
        return count, size

    def digest(self) -> str | None:
        """One hash of what all files hold, wherever they lie; None where there are none."""
        if not self.some:
            return None
        digest = sha256()
        for (contents,) in self._database.execute("select distinct sha256 from files order by sha256"):
            digest.update(contents)
        return digest.hexdigest()
