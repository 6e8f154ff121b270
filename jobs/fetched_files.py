"""Files of a bucket that a manifest names, s3://BUCKET/KEY, read as any other: from a copy on this machine.

A copy lies in the user's cache under its own name, and is taken again while the store says that the object is
the same. Messages and what an output keeps name the place in the bucket (`named`), never the copy.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from jobs.errors import InputError
from jobs.location import BucketPlace, NoLocation, names_bucket
from jobs.plain_file import read_plain
from jobs.user_cache import cache_folder

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

Answer = TypeVar("Answer")
MOST = 20 << 30
"""Bytes of copies that are kept; the ones not used for longest go first."""
SAID = 100 << 20
"""Bytes of a file whose fetching is said."""
_FILES, _STATES = "files", "states"
_MAGIC = re.compile(r"[*?[]")
_PARTS: Final = {"*": "[^/]*", "?": "[^/]"}
_BEGAN: Final = time.time()


class _Key(NamedTuple):
    """An object, or a pattern of such."""

    scheme: str
    bucket: str
    key: str

    @property
    def url(self) -> str:
        return "/".join(part for part in (f"{self.scheme}://{self.bucket}", self.key) if part)


def near(name: str) -> Path:
    """Where a file lies on this machine: the path itself, or the copy of one in a bucket.

    Raises InputError for one of a bucket that is not there or cannot be read.
    """
    return _near(name) if names_bucket(name) else Path(name)


def matching(pattern: str) -> list[str]:
    """The places in a bucket that a pattern (*, ?, [a-z], **) matches, sorted.

    No wildcard matches a name that begins with a dot. Raises InputError.
    """
    asked = _parsed(pattern)
    parts = asked.key.split("/")
    fixed = next((at for at, part in enumerate(parts) if _MAGIC.search(part)), len(parts) - 1)
    try:
        wanted = _regular(parts)
    except re.error as error:
        raise InputError(f"{pattern}: is no pattern ({error}): correct it") from None
    folder = asked._replace(key="/".join(parts[:fixed]))
    return sorted(asked._replace(key=key).url for key in _below(folder) if wanted.fullmatch(key))


def is_there(place: str) -> bool:
    """Whether a place in a bucket is a file. Raises InputError."""
    asked = _parsed(place)
    try:
        _head(asked)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(asked, error) from None
    return True


def copy_of(place: str) -> Path:
    """Where the copy of a place in a bucket, or of a pattern, lies or would lie. Raises InputError."""
    asked = _parsed(place)
    return _folder() / _FILES / asked.scheme / asked.bucket / asked.key


def named(text: str) -> str:
    """The text with places in buckets in the stead of their copies."""
    return _copies(str(_folder())).sub(r"\1://", text)


def _folder() -> Path:
    return cache_folder("fetched")


@cache
def _copies(folder: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(folder)}/{_FILES}/(s3|gs|az)/")


def _parsed(text: str) -> _Key:
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    try:
        BucketPlace.parse(f"{scheme}://{bucket}")
    except NoLocation as error:
        raise InputError(f"{text}: {error}") from None
    if not key or not key.isprintable() or any(part in ("", ".", "..") for part in key.split("/")):
        raise InputError(f"{text}: is no file's name there: write {scheme}://{bucket}/FOLDER/FILE")
    if importlib.util.find_spec("obstore") is None:
        raise InputError(
            f"{text}: obstore, which reads buckets, is not installed: pip install 'imagemill[cloud]'"
        )
    return _Key(scheme, bucket, key)


def _regular(parts: list[str]) -> re.Pattern[str]:
    """A pattern of keys as a regular expression."""
    made = ""
    for at, part in enumerate(parts):
        last = at == len(parts) - 1
        if part == "**":
            made += "(?:[^/.][^/]*/)*" + ("[^/.][^/]*" if last else "")
            continue
        hidden = "(?![.])" if _MAGIC.match(part) else ""
        made += hidden + re.sub(r"\[!?\]?[^\]]*\]|.", _of_one, part) + ("" if last else "/")
    return re.compile(made)


def _of_one(found: re.Match[str]) -> str:
    text = found[0]
    if text in _PARTS:
        return _PARTS[text]
    if len(text) > 2:
        inner = text[1:-1].replace("\\", "\\\\")
        return f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
    return re.escape(text)


# Asking the store.


@lru_cache(10_000)
def _near(place: str) -> Path:
    asked = _parsed(place)
    try:
        return _fetched(asked)
    except FileNotFoundError:
        raise InputError(f"{place}: there is no such file: correct it, or put the file there") from None
    except OSError as error:
        raise _unreadable(asked, error) from None


def _head(asked: _Key) -> ObjectMeta:
    import obstore

    return _asked(asked, lambda store: obstore.head(store, asked.key))


def _below(folder: _Key) -> Iterator[str]:
    from jobs.output.bucket_store import BucketStore  # an extra, and slow to import

    try:
        yield from BucketStore(BucketPlace(folder.scheme, folder.bucket, "")).files_below(folder.key)
    except OSError as error:
        raise _unreadable(folder, error) from None


def _asked(asked: _Key, ask: Callable[[ObjectStore], Answer]) -> Answer:
    """What the store answers. Raises OSError."""
    from jobs.output import bucket_client  # an extra, and slow to import

    store = bucket_client.connected(BucketPlace(asked.scheme, asked.bucket, ""))
    return bucket_client.asked(asked.url, lambda: ask(store))


def _fetched(asked: _Key) -> Path:
    """The copy, which is fetched unless it is there. Raises OSError, InputError."""
    found = _head(asked)
    target = copy_of(asked.url)
    state = _folder() / _STATES / asked.scheme / asked.bucket / asked.key
    if _is_copy(target, state, found):
        os.utime(state)
        return target
    _room.make(asked, found["size"])
    if found["size"] >= SAID:
        sys.stderr.write(f"fetching {asked.url}, {found['size'] / 1e6:,.0f} MB, to {target}\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    state.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".")
    try:
        os.close(handle)
        told = _download(asked, Path(temporary))
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    state.write_text(_state(target, told), "utf-8")
    return target


def _download(asked: _Key, to: Path) -> ObjectMeta:
    """Writes the object into a file; returns what the store says of that one. Raises OSError."""
    from jobs.output.object_access import PART, fetch
    from jobs.output.object_parts import ObjectParts  # an extra, and slow to import

    parts = ObjectParts(BucketPlace(asked.scheme, asked.bucket, ""), asked.key, asked.url)
    with to.open("wb") as file:
        size, data = parts.part(0, PART)
        file.write(data)
        file.flush()
        fetch(parts.part, size, file, PART)
    return parts.first


def _is_copy(target: Path, state: Path, found: ObjectMeta) -> bool:
    try:
        return read_plain(state).decode() == _state(target, found)
    except (OSError, ValueError):
        return False


def _state(copy: Path, of: ObjectMeta) -> str:
    """What an object was when it was copied, and the file that it was copied to."""
    status = copy.stat()
    if status.st_size != of["size"]:
        return ""
    version = of["e_tag"] if of["e_tag"] is not None else of["last_modified"].isoformat()
    return f"{version} {of['size']} {status.st_ino} {status.st_mtime_ns}"


class _Room:
    """The room of the copies: what this process has not used goes, so that others fit."""

    def __init__(self) -> None:
        self._held: int | None = None
        """Bytes of all copies, as far as this process knows."""

    def make(self, asked: _Key, size: int) -> None:
        """Takes copies away where another one would not fit. Raises InputError."""
        if self._held is None or self._held + size > MOST:
            self._held = self._left(size)
        self._held += size
        if self._held > MOST:
            raise InputError(
                f"{asked.url}: with it, more than {MOST >> 30} GiB that lie in buckets would be copied here: "
                "copy the files to a folder first"
            )

    def _left(self, size: int) -> int:
        files, states = _folder() / _FILES, _folder() / _STATES
        kept = [(state.stat().st_mtime, state) for state in states.rglob("*") if state.is_file()]
        copies = [(used, files / state.relative_to(states), state) for used, state in sorted(kept)]
        held = sum(copy.stat().st_size for _, copy, _ in copies if copy.is_file())
        for used, copy, state in copies:
            if held + size > MOST and used < _BEGAN and copy.is_file():
                held -= copy.stat().st_size
                state.unlink(missing_ok=True)
                copy.unlink(missing_ok=True)
        return held


_room = _Room()


def _unreadable(asked: _Key, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{asked.url}: cannot be copied to {_folder()} ({error.strerror}): make room there")
    if error.errno == errno.ESTALE:
        return InputError(f"{asked.url}: {error.strerror}: try again once it is written")
    return InputError(
        f"{asked.url}: cannot be read ({error.strerror}): check the bucket's name, its endpoint and the "
        "credentials"
    )
